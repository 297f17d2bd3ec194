"""The demo's job as library calls: the bundled model in 5 steps, judged, compared, reported."""

import mmd_ddm as mmd

base = mmd.load("fashion-mnist")  # a folder, a run, a hub id, a live DiffusionPipeline
photos = mmd.images("fashion-mnist").split(heldout=mmd.images("fashion-mnist-heldout"))
chain = mmd.Chain(steps=5, sampler="ddim", spacing="midpoint")
result = mmd.finetune(
    base, photos, chain, out="library-run", progress=mmd.bars,
    features=["encoder", "denoiser"], judges=["efficientnet-lite0"], judge_samples=600,
    select={"every": 35, "samples": 300}, compare_steps=[20], recompute=False,
    iterations=140, batch_size=32, lr=2.5e-5, cosine=True, ema_decay=0.9, grad_clip=0.5,
)  # fmt: skip
print(result.verdict.sentence)

pixels = result.sampler.draw(64, seed=0)  # uint8, [64, 1, 28, 28]
table = mmd.compare(
    base, photos.heldout, samplers=["ddim", "unipc"], steps=[5], runs=[result], n=600,
    out="library-run/bench", progress=mmd.bars,
)  # fmt: skip
mmd.report([result, table], "library-run/report.html")
result.pipeline().save_pretrained("library-run/pipeline")  # plain diffusers loads it
