"""One model that draws in 3, 5, 8 and 12 steps, judged at each: minutes on two cores."""

import mmd_ddm as mmd

base = mmd.load("fashion-mnist")
photos = mmd.images("fashion-mnist").split(heldout=mmd.images("fashion-mnist-heldout"))
result = mmd.finetune(
    base, photos, budgets=[3, 5, 8, 12], recipe="auto", out="many-run", progress=mmd.bars,
    features=["encoder", "denoiser"], judges=["efficientnet-lite0"], judge_samples=600,
    select={"every": 0}, compare_steps=[],
)  # fmt: skip
print(result.verdict.sentence)
pipeline = result.pipeline()  # of diffusers; one call draws at any of these numbers of steps
for steps in (3, 5, 8, 12):
    pipeline(batch_size=1, num_inference_steps=steps).images[0].save(f"many-run/{steps}.png")
