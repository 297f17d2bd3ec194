"""The latent bases at 4 steps: finetuned, and beside more steps of themselves, with guidance.

    python recipes/latent/run.py --bases BASES --out RUNS --seeds 3 -n 3000

BASES is that of bases.py. The DiT is matched with its classes, all weights; the text-to-image
pipeline with captions made of the same names, through LoRA. Each run judges held-out KID, class
KID and the accuracy of the class that a label or caption names, of the base at 4, 20 and 50 steps;
a file beside it is of the base with guidance, at as many calls as 4 and 20 steps without. The same
command resumes, and `mmd-ddm report RUNS/* --out report.md` is their table.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mmd_ddm as mmd
from mmd_ddm.config import ReadConfig
from mmd_ddm.data.images import ImageSet, load_images
from mmd_ddm.runs.files import write_json

SIZE, CAPTION = 32, "a photo of a {}"  # as bases.py has them
JOB: dict[str, Any] = {
    "features": ["encoder"], "judges": ["efficientnet-lite0"], "compare_steps": [20, 50],
    "iterations": 80, "batch_size": 48, "lr": 1.5e-5, "cosine": True, "ema_decay": 0.9,
    "grad_clip": 0.5, "select": {"every": 20, "samples": 500},
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "dit": {},
    "text": {"trained": "lora", "lr": 1e-4},
}
GUIDED = [{"steps": 2, "guidance": 2.0}, {"steps": 10, "guidance": 2.0}]  # 4 and 20 calls


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", type=Path, required=True, help="folder of the bases")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--heldout", default="fashion-mnist-heldout")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=JOB["iterations"])
    parser.add_argument("-n", type=int, default=3000, help="images a row")
    asked = parser.parse_args(arguments)
    data, heldout = (captioned(name) for name in (asked.data, asked.heldout))
    for seed in range(asked.seeds):
        for method in asked.methods:
            base, out = mmd.load(str(asked.bases / method)), asked.out / f"{method}-{seed}"
            settings = {**JOB, **METHODS[method], "iterations": asked.iterations}
            if method == "text":
                settings["condition"] = {"text": f"clip:{asked.bases / 'texts'}"}
            split = data.split(seed, heldout=heldout)
            mmd.finetune(
                base, split, {"steps": 4}, out=out, progress=mmd.bars, **settings, seed=seed,
                judge_samples=asked.n,
            )  # fmt: skip
            guided = [
                mmd.evaluate(
                    base, split.heldout, chain, features=JOB["judges"], n=asked.n, seed=seed
                ).record
                for chain in GUIDED
            ]
            write_json(asked.out / f"{method}-{seed}-guided.json", {"guided": guided})


def captioned(name: str) -> ImageSet:
    """Images with their classes, and captions made of the names of these."""
    images = load_images(name, (1, SIZE, SIZE), ReadConfig(resize=True), labels=True)
    assert images.labels is not None
    named = [CAPTION.format(images.classes[label]) for label in images.labels.tolist()]
    return replace(images, captions=tuple(named))


if __name__ == "__main__":
    main()
