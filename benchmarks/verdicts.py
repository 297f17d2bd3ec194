"""How often the verdict is wrong: runs whose truth is known, judged as `finetune` judges them.

A chain is a shift of its noise, real images are normal as well. Pixels come in halves of two
blocks each. Every feature space maps both blocks of a half alike, so that a chain which shifts the
first block by a and the second by c has the KID of one that shifts them by c and a, in every
space, though the two draw different images from the same noise. The rule until 0.2 stands beside
ours: KIDs as if they were independent, and "gamed" wherever an optimised space improves for
certain and a judge does not.

    python benchmarks/verdicts.py --runs 2000
"""

import argparse
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from record import write
from torch import Tensor

from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.measure import Measured
from mmd_ddm.evaluation.metrics.kid import kid_projections, kid_sums
from mmd_ddm.evaluation.scores import before_after
from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.jobs.judge import compare_to_base
from mmd_ddm.maths.projections import Projections

BLOCK, FEATURES, REAL = 6, 8, 500
SHIFTS = (0.6, 0.4)  # of the two blocks
# What finetuning leaves of the shifts: in the half that only the optimised space sees, and in that
# which only the judges see.
TRUTHS = {
    "no change": (1.0, 1.0),
    "small gain": (0.95, 0.95),
    "gain": (0.7, 0.7),
    "large gain": (0.3, 0.3),
    "null space": (0.3, 1.0),
    "null space, judges worse": (0.3, 1.2),
}
NOTHING = ImageSet(torch.zeros((1, 1, 1, 1), dtype=torch.uint8), "not drawn")
SIZES, JUDGES = (100, 300, 1000), (1, 2, 3)


def one_run(truth: tuple[float, float], n: int, judges: int, seed: int) -> dict[str, Any]:
    """The results of a run, as `finetune` records them."""
    draw = torch.Generator().manual_seed(seed)

    def normal(count: int) -> Tensor:
        return torch.randn(count, 4, BLOCK, generator=draw, dtype=torch.float64)

    def weights() -> Tensor:
        return torch.randn(BLOCK, FEATURES, generator=draw, dtype=torch.float64) / BLOCK**0.5

    roles = {f"space {i}": "held-out" if i else "optimised" for i in range(1 + judges)}
    maps = {space: weights() for space in roles}
    noise, real, other = normal(n), normal(REAL), normal(n)
    (a, c), (seen, unseen) = SHIFTS, truth
    shift = torch.tensor([a, c, a, c]).view(1, 4, 1)
    left = torch.tensor([c * seen, a * seen, c * unseen, a * unseen]).view(1, 4, 1)
    drawn = {"base": noise + shift, "finetuned": noise + left}

    def features(images: Tensor, space: str) -> Tensor:
        half = images[:, :2] if roles[space] == "optimised" else images[:, 2:]
        return torch.tanh(half @ maps[space]).flatten(1)

    reals = {space: features(real, space) for space in maps}
    sums = {space: kid_sums(y) for space, y in reals.items()}

    @cache
    def kid(images: Tensor, space: str, name: str) -> Projections:
        x, y = features(images, space), reals[space]
        return kid_projections(x, y, names=(name, "real"), y_sums=sums[space])

    measured = {}
    for name, images in drawn.items():
        found = {space: kid(images, space, "noise") for space in maps}
        scores = {space: {"kid": f.value, "kid_se": f.se} for space, f in found.items()}
        row = {"name": name, "steps": 5, "spaces": scores}
        measured[name] = Measured(row, NOTHING, found)
    spaces: list[Any] = [
        SimpleNamespace(
            name=name, role=role, other=other, kid=lambda x, of, name=name: kid(x, name, of)
        )
        for name, role in roles.items()
    ]
    floors = {space.name: space.kid(other, "other") for space in spaces}
    about = {
        space.name: {
            "role": space.role,
            "floor": {"kid": floors[space.name].value, "kid_se": floors[space.name].se},
        }
        for space in spaces
    }
    rows = compare_to_base([measured["base"]], [measured["finetuned"]], spaces)
    return {"protocol": {"samples": n}, "spaces": about, **rows}


def label_until_02(results: dict[str, Any]) -> str:
    """The rule as it was."""
    rows = [row for row in before_after(results) if row.metric == "kid"]
    gains = {row.space: row.base.above(row.finetuned) for row in rows}  # type: ignore[union-attr]
    improves = {space: gain.value > 2 * gain.se for space, gain in gains.items()}
    judges = [row for row in rows if row.role == "held-out"]
    optimised = [row for row in rows if row.role == "optimised"]
    if not all(improves[row.space] for row in judges):
        return "gamed" if any(improves[row.space] for row in optimised) else "no gain"
    if any(row.share is None for row in rows):
        return "not judged"
    bar = 0.5 * sum(row.share or 0 for row in optimised) / len(optimised)
    whole = all((row.share or 0) >= bar for row in judges)
    return "real gain" if whole else "part null-space"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    settings = parser.parse_args()
    settings.device = "cpu"
    torch.set_num_threads(1)
    rows = []
    for n in SIZES:
        for judges in JUDGES:
            for truth, left in TRUTHS.items():
                before: Counter[str] = Counter()
                after: Counter[str] = Counter()
                for seed in range(settings.runs):
                    results = one_run(left, n, judges, seed)
                    before[label_until_02(results)] += 1
                    after[verdict(results).label] += 1
                found = {
                    f"{label}, {when}": f"{100 * counts[label] / settings.runs:.1f} %"
                    for label in ("real gain", "gamed")
                    for when, counts in (("before", before), ("now", after))
                }
                unresolved = f"{100 * after['not resolved'] / settings.runs:.1f} %"
                rows.append(
                    {"images": n, "judges": judges, "truth": truth, **found,
                     "not resolved, now": unresolved}
                )  # fmt: skip
                print(rows[-1], flush=True)
    write("verdicts", settings.out, settings, rows)


if __name__ == "__main__":
    main()
