"""Classes, a rectified flow and EDM: what the bases draw, and what they are finetuned to.

    python recipes/conditional/run.py --bases BASES

BASES holds the runs ``flow`` and ``edm`` of ``mmd-ddm pretrain`` as they are made in
recipes/fashion-mnist/README.md; the model with classes is bundled. Each job is written to
``rows.jsonl`` as it is done; the same command goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import mmd_ddm as mmd

ROWS = Path(__file__).parents[2] / "docs/conditional/rows.jsonl"
DATA = "fashion-mnist"
CLASSES = f"{DATA}-classes"
JOB: dict[str, Any] = {
    "heldout": f"{DATA}-heldout", "objective": {"features": ["encoder"]}, "select": {"every": 0},
    "recompute": False, "iterations": 80, "batch_size": 48, "lr": 1.5e-5, "cosine": True,
    "ema_decay": 0.9, "grad_clip": 0.5,
}  # fmt: skip
TWO = ["encoder", f"denoiser:{DATA}"]
CHAIN = {"steps": 5, "sampler": "unipc", "order": 3, "backward": "last-3"}
# What each is finetuned from, and how.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "joint": (CLASSES, {"compare_steps": [20, 50]}),
    "marginal": (CLASSES, {"condition": {"match": "ignore"}}),
    "joint, baked guidance": (
        CLASSES, {"chain": {"guidance": 2.0}, "condition": {"bake_guidance": True}}
    ),
    "joint, mix 0.5": (CLASSES, {"condition": {"mix": 0.5}}),
    "joint, two spaces": (CLASSES, {"objective": {"features": TWO}}),
    "marginal, two spaces": (
        CLASSES, {"condition": {"match": "ignore"}, "objective": {"features": TWO}}
    ),
    "edm, two spaces": ("edm", {"objective": {"features": TWO}}),
    "flow": ("flow", {"compare_steps": [20]}),
    "edm": ("edm", {"compare_steps": [20]}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", type=Path, required=True, help="folder of the bases' runs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--seeds", type=int, default=3, help="of training and judgement")
    parser.add_argument("-n", type=int, default=1000, help="images a row")
    parser.add_argument("--runs", type=Path, default=Path("runs/conditional"), help="their folder")
    parser.add_argument("--out", type=Path, default=ROWS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = asked.out.read_text(encoding="utf-8").splitlines() if asked.out.is_file() else []
    done = [json.loads(line) for line in lines]
    for seed in range(asked.seeds):
        for method in asked.methods:
            key = {"method": method, "seed": seed, "samples": asked.n}
            if any(key.items() <= row.items() for row in done):
                continue
            found = make(method, seed, asked.n, asked.bases, asked.runs)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(key | found) + "\n")


def make(method: str, seed: int, n: int, bases: Path, runs: Path) -> dict[str, Any]:
    """One job, finetuned and judged: its rows, the floors and the verdict."""
    base, settings = job(method)
    result = mmd.finetune(
        base if base == CLASSES else str(bases / base),
        DATA,
        out=runs / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}-{n}",
        progress=mmd.bars,
        **settings,
        seed=seed,
        judge_samples=n,
    )
    found = result.record
    spaces = {
        name: {"role": about["role"], "floor": about["floor"]}
        for name, about in found["spaces"].items()
    }
    return {
        "base": base, "rows": found["rows"], "spaces": spaces, "verdict": result.verdict.label,
    }  # fmt: skip


def job(method: str) -> tuple[str, dict[str, Any]]:
    """The base, and the settings of the finetuning."""
    base, own = METHODS[method]
    settings = {**JOB, "compare_steps": [], **own}
    return base, {**settings, "chain": {**CHAIN, **own.get("chain", {})}}


if __name__ == "__main__":
    main()
