"""Every K on the bundled model: what needs no training, the learned times, and what is finetuned.

    python recipes/every-k/run.py --steps 5 10 --methods solver --seeds 3 -n 3000

Each row is written to ``rows.jsonl`` as it is done; the same command goes on where it was stopped,
and skips what is there. Every row has its difference from the best training-free chain of as many
network calls, over the same noise and the same held-out images. The training-free chains are the
best of a search over solvers, orders and times (``mmd-ddm bench``, docs/bench), by the same judge,
which favours them.
"""

import argparse
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import mmd_ddm as mmd
from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.evaluation.measure import Entry, Measured, measure
from mmd_ddm.evaluation.paired import above
from mmd_ddm.evaluation.space import Space
from mmd_ddm.jobs.build import load_model, resolve_chain
from mmd_ddm.jobs.recipe import complete
from mmd_ddm.jobs.train import train
from mmd_ddm.runs.bars import bars
from mmd_ddm.runs.folder import read_events
from mmd_ddm.settings import from_mapping

ROWS = Path(__file__).parents[2] / "docs/every-k/rows.jsonl"
SPACES = {"efficientnet-lite0": "held-out", "encoder": "optimised", "denoiser": "optimised"}
ALL_K = (1, 2, 3, 4, 5, 8, 10, 12, 15, 20)
MANY = (3, 5, 8, 12)  # that one model serves
MODEL = "fashion-mnist"
JOB = {
    "model": MODEL, "data": MODEL, "heldout": f"{MODEL}-heldout", "recipe": "auto",
    "objective": {"features": ["encoder", "denoiser"]}, "select": {"every": 0},
    "compare_steps": [], "recompute": False,
}  # fmt: skip
# Of each number of network calls: by held-out KID, of 500 images.
FREE: dict[int, dict[str, Any]] = {
    1: {"sampler": "ddim", "times": [850]},
    2: {"sampler": "unipc", "order": 2, "spacing": "log-snr-open"},
    3: {"sampler": "deis", "order": 2, "times": [800, 500, 200]},
    4: {"sampler": "unipc", "order": 3},
    5: {"sampler": "unipc", "order": 3},
    8: {"sampler": "unipc", "order": 3},
    10: {"sampler": "dpm-solver++-3m"},
    12: {"sampler": "unipc", "order": 3},
    15: {"sampler": "unipc", "order": 3},
    20: {"sampler": "unipc", "order": 2},
}
# What is trained, over the recipe.
METHODS: dict[str, dict[str, Any]] = {
    "times": {
        "trained": "times", "iterations": 60, "ema_decay": 0.9, "chain": {"backward": "all"}
    },
    "ddim": {"chain": {"sampler": "ddim"}},
    "solver": {},
    # From five steps on a third of the recipe's iterations at three times its rate.
    "solver, 100 iterations": {"iterations": 100, "lr": 2.5e-5, "ema_decay": 0.9},
    "solver, 60 iterations": {"iterations": 60, "lr": 1.5e-5, "ema_decay": 0.9},
    "solver, full gradient": {"chain": {"backward": "all"}},
    "solver, random calls": {"chain": {"backward": "random-3"}},
    "solver, half the rate": {"lr": 4.2e-6},
    "joint": {"trained": "all+times"},
    "many": {"budgets": list(MANY)},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=ALL_K)
    parser.add_argument("--methods", nargs="+", default=["free", *METHODS])
    parser.add_argument("--seeds", type=int, default=3, help="of training and judgement")
    parser.add_argument("-n", type=int, default=1000, help="images a row")
    parser.add_argument("--runs", type=Path, default=Path("runs/every-k"), help="their folder")
    parser.add_argument("--out", type=Path, default=ROWS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = _read(asked.out)
    for seed in range(asked.seeds):
        for k in asked.steps:
            for method in asked.methods:
                own = METHODS.get(method, {})
                if k == 1 and "times" in own.get("trained", ""):
                    continue  # one time is where it begins, which stays
                if k not in own.get("budgets", [k]):
                    continue
                key = {"steps": k, "method": method, "seed": seed, "samples": asked.n}
                if not any(key.items() <= row.items() for row in rows):
                    rows.append(key | make(k, method, seed, asked.n, asked.runs))
                    with asked.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1]) + "\n")


def make(k: int, method: str, seed: int, n: int, runs: Path) -> dict[str, Any]:
    """One row: the run, if it takes one, and what the judge says."""
    free = judged(MODEL, free_chain(k), n, seed)
    if method == "free":
        return about(free, seconds=0, less={})
    own = METHODS[method]
    budgets = own.get("budgets", [k])  # of which the most are told, and named in the folder
    run = runs / f"{max(budgets)}-{method.replace(', ', '-').replace(' ', '-')}-{seed}"
    chain = {"steps": max(budgets), **own.get("chain", {})}
    settings = {**JOB, **own, "seed": seed, "chain": chain}
    train(from_mapping(FinetuneConfig, complete(settings)), run, bars)
    # Of all iterations, whatever stopped the run between them.
    seconds = sum(event["seconds"] for event in read_events(run) if event["event"] == "train")
    found = judged(str(run), k, n, seed)
    return about(found, seconds=round(seconds), less=above(found.kid, free.kid))


def free_chain(k: int) -> ChainConfig:
    """The best training-free one of K network calls."""
    return from_mapping(ChainConfig, {"steps": k, **FREE[k]})


def judged(model: str, chain: ChainConfig | int, n: int, seed: int) -> Measured:
    """A chain, or that of a run for so many steps, in all the spaces."""
    loaded = load_model(model, "cpu")
    if isinstance(chain, int):
        own = [one for one in (loaded.chain, *loaded.budgets) if one and one.steps == chain]
        chain = own[0]
    chain = resolve_chain(chain, loaded.denoiser)
    entry = Entry(model, model, chain, mmd.build_sampler(chain, loaded.denoiser))
    with bars.bar(f"{Path(model).name}, {len(chain.times)} steps", n) as bar:
        return measure(entry, spaces(), n, seed, bar)


def about(found: Measured, *, seconds: float, less: Mapping[str, Any]) -> dict[str, Any]:
    """The row as it is kept."""
    keys = ("sampler", "order", "spacing", "times", "nfe", "spaces")
    row = {key: found.row[key] for key in keys if key in found.row}
    return {**row, "above_free": less, "train_seconds": seconds}


@cache
def spaces() -> list[Space]:
    """Where all rows are judged; the held-out one decides."""
    real = mmd.images(f"{MODEL}-heldout")
    names = {"denoiser": f"denoiser:{MODEL}"}
    return [
        Space(name, role, mmd.make_features(names.get(name, name), 1), real)
        for name, role in SPACES.items()
    ]


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
