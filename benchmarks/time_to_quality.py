"""How soon: held-out KID against seconds and network calls, the published algorithm and ours.

Both finetune the same base for the same K from the same seeds. *Published* is the released code's:
DDIM at leading times, fresh real images in every iteration, features as they are, a hard clamp, a
fixed rate of 5e-6, no average of the weights, batch 64. *Ours* is `recipe = auto`, in the spaces
that both are given. The seconds are of the processor, without those of the judgement, and without
the features of the real images, which both have from one bank.

    taskset -c 1 python benchmarks/time_to_quality.py --steps 5,10 --repeats 3

Each run is written when it is done; the same command goes on with those that are missing.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
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
from mmd_ddm.report.axes import draw_curve
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
    parser = options(__doc__, features="encoder,denoiser", steps="5,10", batch_size=0, repeats=3)
    parser.add_argument("--iterations", type=int, default=200, help="of the published algorithm")
    parser.add_argument("--marks", type=int, default=10, help="judgements of a run")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--judge", default="efficientnet-lite0")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--heldout", default="fashion-mnist-heldout")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    rows = done(settings)
    budgets = [int(steps) for steps in settings.steps.split(",")]
    for steps, seed, name in product(budgets, range(settings.repeats), RECIPES):
        key = {"recipe": name, "steps": steps, "seed": seed}
        if any(key.items() <= row.items() for row in rows):
            continue
        own = RECIPES[name]
        asked = {key: getattr(settings, key) for key in ("model", "data", "heldout")}
        asked |= {**own, "seed": seed, "chain": {**own.get("chain", {}), "steps": steps}}
        features = settings.features.split(",")
        asked["objective"] = {**own.get("objective", {}), "features": features}
        if name == "published":
            asked["iterations"] = settings.iterations
        if settings.batch_size:
            asked["batch_size"] = settings.batch_size
        rows += [key | row for row in curve(complete(asked), settings)]
        write("time_to_quality", settings.out, settings, rows, summary=summary(rows))
        chart(rows, settings.judge).savefig(settings.out / "time_to_quality.png", dpi=110)


def done(settings: Any) -> list[dict[str, Any]]:
    """The rows of earlier calls for the same."""
    path = settings.out / "time_to_quality.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    free = ("steps", "repeats", "out")  # may grow
    same = [key for key in vars(settings) if key not in free]
    other = [key for key in same if found["settings"].get(key) != str(getattr(settings, key))]
    if other:
        sys.exit(f"{path} was measured with another {', '.join(other)}; choose another --out")
    return found["rows"]


def curve(asked: dict[str, Any], settings: Any) -> list[dict[str, Any]]:
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
            "iteration": step,
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


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each K: where both end, and how soon ours is where the published one ends, by seeds."""
    found = []
    for steps in sorted({row["steps"] for row in rows}):
        runs = {name: _runs(rows, name, steps) for name in RECIPES}
        pairs = list(zip(*runs.values(), strict=False))  # one may still be missing
        if not pairs:
            continue
        ends = [published[-1] for published, _ in pairs]
        shares = [
            _soon(ours, end["KID"]) / end["seconds"]
            for (_, ours), end in zip(pairs, ends, strict=True)
        ]
        found.append({
            "steps": steps, "seeds": len(pairs),
            "published, KID at the end": mean(end["KID"] for end in ends),
            "published, seconds": mean(end["seconds"] for end in ends),
            "ours, KID at the end": mean(ours[-1]["KID"] for _, ours in pairs),
            "ours, seconds": mean(ours[-1]["seconds"] for _, ours in pairs),
            "share of the time to the published KID": shares,
        })  # fmt: skip
    return found


def _runs(rows: Sequence[dict[str, Any]], name: str, steps: int) -> list[list[dict[str, Any]]]:
    own = [row for row in rows if (row["recipe"], row["steps"]) == (name, steps)]
    return [[r for r in own if r["seed"] == seed] for seed in sorted({r["seed"] for r in own})]


def _soon(run: Sequence[dict[str, Any]], goal: float) -> float:
    """Seconds after which a run is at a KID and stays there; infinite if it never is."""
    above = [i for i, row in enumerate(run) if row["KID"] > goal]
    first = above[-1] + 1 if above else 0
    return run[first]["seconds"] if first < len(run) else float("inf")


def chart(rows: Sequence[dict[str, Any]], judge: str) -> Figure:
    """Held-out KID against seconds, a panel a K: the means of the seeds and their errors."""
    budgets = sorted({row["steps"] for row in rows})
    figure = Figure(figsize=(4.6 * len(budgets), 3.8), layout="constrained")
    for axes, steps in zip(np.atleast_1d(figure.subplots(1, len(budgets))), budgets, strict=True):
        for name in RECIPES:
            marks = list(zip(*_runs(rows, name, steps), strict=True))
            points = [
                (mean(r["seconds"] for r in mark), mean(r["KID"] for r in mark), _se(mark))
                for mark in marks
            ]
            draw_curve(axes, points, label=name, marker="o", markersize=3, capsize=2)
        axes.set(xlabel="seconds of training", ylabel="KID x1000", title=f"{steps} steps, {judge}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _se(mark: Sequence[dict[str, Any]]) -> float:
    """Of the mean over seeds, from their scatter; of a single one its own."""
    kids = [row["KID"] for row in mark]
    return stdev(kids) / len(kids) ** 0.5 if len(kids) > 1 else mark[0]["se"]


if __name__ == "__main__":
    main()
