"""How soon: held-out KID against seconds and network calls, the published algorithm and ours.

Both finetune the same base for the same K from the same seeds. *Published* is the released code's:
DDIM at leading times, fresh real images in every iteration, features as they are, a hard clamp, a
fixed rate of 5e-6, no average of the weights, batch 64. *Ours* is `recipe = auto`, in the spaces
that both are given. The seconds are of the processor, without those of the judgement, and without
the features of the real images, which both have from one bank.

    taskset -c 1 python benchmarks/time_to_quality.py --steps 5 --repeats 3
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import write
from work import options

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.evaluation.metrics.kid import kid_projections, kid_sums
from mmd_ddm.features.bank import extract
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_data, build_sampler, load_model
from mmd_ddm.jobs.recipe import complete
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import JUDGE
from mmd_ddm.runs.progress import silent
from mmd_ddm.samplers.draw import draw
from mmd_ddm.settings import from_mapping
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.objective import build_objectives

PUBLISHED: dict[str, Any] = {
    "chain": {"spacing": "leading"},
    "objective": {"reference": "minibatch", "standardise": False, "clamp": "hard"},
    "lr": 5e-6, "ema_decay": 0, "grad_clip": 0.5, "batch_size": 64,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {"published": PUBLISHED, "ours": {"recipe": "auto"}}


def main() -> None:
    parser = options(__doc__, features="encoder,denoiser", batch_size=0, repeats=3)
    parser.add_argument("--iterations", type=int, default=200, help="of the published algorithm")
    parser.add_argument("--marks", type=int, default=5, help="judgements of a run")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--judge", default="efficientnet-lite0")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--heldout", default="fashion-mnist-heldout")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    names = ("model", "data", "heldout")
    rows = []
    for seed in range(settings.repeats):
        for name, own in RECIPES.items():
            asked = {key: getattr(settings, key) for key in names} | own | {"seed": seed}
            asked["chain"] = {**own.get("chain", {}), "steps": settings.steps}
            features = settings.features.split(",")
            asked["objective"] = {**own.get("objective", {}), "features": features}
            if name == "published":
                asked["iterations"] = settings.iterations
            if settings.batch_size:
                asked["batch_size"] = settings.batch_size
            rows += curve(name, complete(asked), settings)
    write("time_to_quality", settings.out, settings, rows, summary=summary(rows))


def curve(name: str, asked: dict[str, Any], settings: Any) -> list[dict[str, Any]]:
    """One run, judged at its beginning and at equal parts of it."""
    every = -(-asked["iterations"] // settings.marks)
    # Judged as checkpoints are, with the averaged weights in place, but never stopped.
    select = {"features": "pixels", "every": every, "patience": 0, "diverged": 0}
    config = from_mapping(FinetuneConfig, {**asked, "select": select})
    denoiser = load_model(config.model, "cpu").denoiser
    denoiser.network.requires_grad_(True)
    data, channels = build_data(config, denoiser.shape), denoiser.shape[0]
    phis = {space: make_features(space, channels) for space in config.objective.features}
    judge = make_features(settings.judge, channels)
    real = extract(data.heldout.pixels, judge)
    sums = kid_sums(real)
    device = torch.device("cpu")
    objectives = build_objectives(config.objective, phis, data.matched, device, silent)
    sampler = build_sampler(config.chain, denoiser)
    rows: list[dict[str, Any]] = []
    began, judged = time.process_time(), 0.0

    def evaluate() -> Projections:
        nonlocal judged
        now = time.process_time()
        pixels, _ = draw(sampler, settings.samples, seed=config.seed, purpose=JUDGE)
        found = kid_projections(extract(pixels, judge), real, names=("x", "real"), y_sums=sums)
        step = min(len(rows) * every, config.iterations)
        row = {
            "recipe": name, "steps": len(sampler.times), "seed": config.seed, "iteration": step,
            "network calls": step * config.batch_size * len(sampler.times),
            "seconds": now - began - judged, "KID": 1000 * found.value, "se": 1000 * found.se,
        }  # fmt: skip
        rows.append(row)
        print(row, flush=True)
        judged += time.process_time() - now
        return found

    with tempfile.TemporaryDirectory() as folder:
        finetune(
            config, sampler, objectives, Path(folder) / "state.pt", lambda **event: None, evaluate
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Where the published algorithm ends, and how soon ours is there: means over the seeds."""
    seeds = sorted({row["seed"] for row in rows})
    of = {
        name: [[r for r in rows if (r["recipe"], r["seed"]) == (name, seed)] for seed in seeds]
        for name in RECIPES
    }
    ends = {name: [run[-1] for run in runs] for name, runs in of.items()}
    goal = statistics.mean(end["KID"] for end in ends["published"])
    marks = [
        {key: statistics.mean(run[i][key] for run in of["ours"]) for key in ("KID", "seconds")}
        for i in range(len(of["ours"][0]))
    ]
    soon = next((mark["seconds"] for mark in marks if mark["KID"] <= goal), float("nan"))
    return {
        "published, KID at the end": goal,
        "ours, KID at the end": statistics.mean(end["KID"] for end in ends["ours"]),
        "published, seconds": statistics.mean(end["seconds"] for end in ends["published"]),
        "ours, seconds to that KID": soon,
    }


if __name__ == "__main__":
    main()
