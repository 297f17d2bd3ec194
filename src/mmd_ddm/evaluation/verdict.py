"""Was the gain real? Feature spaces that finetuning optimised against spaces it never saw.

An MMD in one feature space can fall by changes that no one sees and no other network notices:
changes in the null space of the images that matter. So the verdict rests on the held-out spaces,
the judges, by a rule stated in full on every page. Each accusation, and each praise, is wrong in
at most 2.5 % of runs, over all judges together (`benchmarks/verdicts.py` simulates it). Of a model
for several numbers of steps, each judge at each of them is a judge.

References:
    Holm, "A simple sequentially rejective multiple test procedure", 1979.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmd_ddm.evaluation.scores import (
    ALPHA,
    SIGNIFICANT,
    Row,
    Score,
    before_after,
    budgets_in,
    format_percent,
    format_score,
    metric_name,
    quantile,
)

__all__ = ["RULE", "Finding", "Verdict", "listed", "verdict"]

RULE = (
    "KID at the same number of steps, base less finetuned; the error is of the difference, over "
    "the same noise and the same real images. Real gain: every held-out space improves, each "
    "tested with Holm's correction so that all together err in 2.5 % of runs. Gamed: an optimised "
    "space improves, and a held-out one gets worse or closes less than half the share of its gap "
    "to real images that the optimised ones close on average, both tested at 2.5 % over all "
    "held-out spaces. Worse: no optimised space improves and a held-out one gets worse. Not "
    "resolved: none of these could be shown. Selection spaces chose the checkpoint, so they are "
    "not counted."
)
_CLASSES = (
    " KID is class KID, the mean over classes of the KID within a class. Where the accuracy in a "
    "held-out space is below the base's and below that of real images, both tested at 2.5 % over "
    "all of them, a gain is none: it is gamed if an optimised space improves, else worse."
)
_SEVERAL = " Each held-out space counts at each of the numbers of steps."
_POWER = 0.8  # with which the number of images that is proposed would resolve the difference


@dataclass(frozen=True)
class Finding:
    """What the verdict knows of one space; None where the results do not say.

    Attributes:
        role: ``optimised``, ``selection`` (not counted) or ``held-out``.
        base: KID of the base model at K steps, unscaled.
        finetuned: KID of the finetuned model.
        floor: KID between two disjoint sets of real images.
        base_se: its standard error, as of the two others.
        finetuned_se: the same.
        floor_se: the same.
        gain: base less finetuned.
        gain_se: of that difference.
        share: of the gap to real images that was closed; 1 is all of it.
        improves: tested on its own, at 2.5 %.
    """

    role: str
    base: float | None
    finetuned: float | None
    floor: float | None
    base_se: float | None
    finetuned_se: float | None
    floor_se: float | None
    gain: float | None
    gain_se: float | None
    share: float | None
    improves: bool | None

    @classmethod
    def of(cls, row: Row) -> "Finding":
        """Read it from the KID row of the space."""
        scores = {
            "base": row.base, "finetuned": row.finetuned, "floor": row.floor, "gain": row.gain
        }  # fmt: skip
        return cls(
            role=row.role,
            **{name: s.value if s else None for name, s in scores.items()},
            **{f"{name}_se": s.se if s else None for name, s in scores.items()},
            share=row.share,
            improves=None if row.gain is None else row.gain.significant,
        )

    @property
    def text(self) -> str:
        """In words."""
        if self.gain is None:
            return "not judged"
        found = _change(Score(self.gain, self.gain_se or 0.0))
        if self.share is None:
            return found
        return f"{found}, {format_percent(self.share, scale=100.0)} of the gap closed"


@dataclass(frozen=True)
class Verdict:
    """A judgement of one run.

    Attributes:
        label: ``real gain``, ``gamed``, ``worse``, ``not resolved`` or ``not judged``.
        sentence: the finding with its numbers.
        rule: how it was reached; the same for every run of one number of steps.
        spaces: what is known of every space, by its name; of several numbers of steps at each.
        gained: the numbers of steps at which every held-out space improves.
    """

    label: str
    sentence: str
    rule: str
    spaces: dict[str, Finding]
    gained: list[int]

    def record(self) -> dict[str, Any]:
        """For ``results.json``."""
        return asdict(self)


def verdict(results: dict[str, Any]) -> Verdict:
    """Judge a run by its KID rows, or by those of class KID where classes are known.

    Args:
        results: the content of ``results.json``.
    """
    budgets = budgets_in(results)
    rows = [row for steps in budgets or (None,) for row in before_after(results, steps)]
    by_class = any(row.metric == "class_kid" for row in rows)
    kid = [row for row in rows if row.metric == ("class_kid" if by_class else "kid")]
    held_out = [row for row in kid if row.role == "held-out"]
    optimised = [row for row in kid if row.role == "optimised"]
    about = results.get("protocol") or {}
    tell = _changes if budgets else _gains
    label, finding = _judge(held_out, optimised, about.get("samples"), tell, about.get("method"))
    lost = _lost(rows)
    if lost and label in ("real gain", "not resolved"):
        improved = any(_z(row.gain) > SIGNIFICANT for row in optimised)
        label = "gamed" if improved else "worse"
        finding += f"; but accuracy falls in {_told(lost)}"
    proven = _improve(held_out) if label != "not judged" else []
    lacking = {row.steps for row in held_out if row not in proven} | {row.steps for row in lost}
    return Verdict(
        label,
        f"{label.capitalize()}: {finding}.",
        RULE + _CLASSES * by_class + _SEVERAL * bool(budgets),
        {
            f"{row.space} at {row.steps} steps" if budgets else row.space: Finding.of(row)
            for row in kid
        },
        sorted({row.steps for row in proven if row.steps} - lacking),
    )


def _lost(rows: Sequence[Row]) -> list[Row]:
    """Where held-out accuracy fell, and is below that of real images, which is all one can ask."""
    told = [row for row in rows if (row.metric, row.role) == ("accuracy", "held-out")]
    found = []
    for row in told:
        falls = [row.gain]
        if row.floor and row.finetuned:
            falls.append(row.floor.above(row.finetuned))
        if all(fall is not None and fall.beyond(len(told)) for fall in falls):
            found.append(row)
    return found


def _told(rows: Sequence[Row]) -> str:
    return ", ".join(
        f"{row.space} ({format_score(row.base, 'accuracy')} to "
        f"{format_score(row.finetuned, 'accuracy')})"
        for row in rows
    )


def _judge(
    held_out: Sequence[Row],
    optimised: Sequence[Row],
    samples: int | None,
    tell: Callable[[Sequence[Row]], str],
    method: str | None,
) -> tuple[str, str]:
    missing = _missing(held_out, "held-out")
    if not method:  # others than MMD optimise in no space
        missing = missing or _missing(optimised, "optimised")
    if missing:
        return "not judged", missing
    if len(_improve(held_out)) == len(held_out):
        against = f"against {tell(optimised)}" if optimised else f"by {method}, in no space"
        return "real gain", f"{tell(held_out)}, {against}"
    beyond = _certain(held_out)
    # An accusation is of a number of steps at which something was gained where it was sought.
    gaining = {row.steps for row in optimised if _z(row.gain) > SIGNIFICANT}
    accused = [
        row
        for row in held_out
        if row.steps in gaining and min(_z(row.gain), _z(row.excess)) < -beyond
    ]
    worse = [row for row in held_out if _z(row.gain) < -beyond]
    if accused:
        return "gamed", f"{tell(optimised)}, but {tell(accused)}"
    if worse:
        return "worse", tell([*optimised, *worse])
    if all(row.gain and row.gain.value == 0 for row in held_out):
        return "not resolved", "both draw the same images"
    return "not resolved", f"{tell(held_out)}; {_more(held_out, samples)}"


def _missing(rows: Sequence[Row], role: str) -> str | None:
    if not rows:
        return f"no {role} space was evaluated"
    for row in rows:
        if row.base is None or row.finetuned is None:
            return f"{row.space} lacks the KID of base or finetuned at the same number of steps"
        if not (row.base.se and row.finetuned.se):
            return f"{row.space} lacks a standard error of its KID"
    return None


def _improve(rows: Sequence[Row]) -> list[Row]:
    """Those for which Holm's procedure rejects that they do not improve."""
    falling = sorted(rows, key=lambda row: -_z(row.gain))
    for i, row in enumerate(falling):
        if not _z(row.gain) > quantile(ALPHA / (len(rows) - i)):
            return falling[:i]
    return falling


def _certain(rows: Sequence[Row]) -> float:
    """How many standard errors accuse one of these: two tests of each share what may err."""
    return quantile(ALPHA / (2 * len(rows)))


def _z(difference: Score | None) -> float:
    """In standard errors; a difference without any is certain."""
    if difference is None or difference.value == 0:
        return 0.0
    if difference.se == 0:
        return math.copysign(math.inf, difference.value)
    return difference.value / difference.se


def _more(rows: Sequence[Row], samples: int | None) -> str:
    """How many images would resolve differences of the sizes that were found."""
    sure = quantile(ALPHA / len(rows))
    needed = 0.0
    for row in rows:
        if row.gain is None or _z(row.gain) > sure:
            continue
        if samples is None or row.paired_se_drawn is None:
            return "draw more samples (judge_samples)"
        # se^2 = drawn / n + real, of which n changes the first part alone.
        drawn, real = samples * row.paired_se_drawn**2, row.gain.se**2 - row.paired_se_drawn**2
        room = (row.gain.value / (sure + quantile(1 - _POWER))) ** 2 - real
        needed = max(needed, drawn / room if room > 0 else math.inf)
    if math.isinf(needed):
        return "no number of samples would resolve so little: hold out more real images"
    return f"draw about {_rounded(needed - (samples or 0)):,} more samples (judge_samples)"


def _rounded(n: float) -> int:
    """Up, to two digits."""
    unit = int(10 ** max(math.floor(math.log10(max(n, 1))) - 1, 0))
    return math.ceil(n / unit) * unit


def _change(gain: Score | None) -> str:
    if _z(gain) > SIGNIFICANT:
        return "improves"
    return "gets worse" if _z(gain) < -SIGNIFICANT else "is not changed for certain"


def _changes(rows: Sequence[Row]) -> str:
    """What became of each space at which numbers of steps, each tested among all of these."""
    proven, beyond = _improve(rows), _certain(rows)
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        change = "is not changed for certain"
        if row in proven:
            change = "improves"
        elif _z(row.gain) < -beyond:
            change = "gets worse"
        found.setdefault(f"{row.role} {row.space}", {}).setdefault(change, []).append(row)
    return "; ".join(
        f"{space} " + ", ".join(f"{change} at {_at(alike)}" for change, alike in changes.items())
        for space, changes in found.items()
    )


def _at(rows: Sequence[Row]) -> str:
    """Numbers of steps, and by how much KID has changed there."""
    changes = sorted(row.change for row in rows if row.change is not None)
    ends = dict.fromkeys(format_percent(some, signed=True) for some in changes[:1] + changes[-1:])
    told = f" (KID {' to '.join(ends)})" if ends else ""
    return f"{listed([row.steps for row in rows])} steps{told}"


def listed(numbers: Sequence[object]) -> str:
    """``3, 5 and 8``."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _gains(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        share = "" if row.share is None else f", {format_percent(row.share, 100.0)} of its gap"
        parts.append(
            f"{row.role} {row.space} {_change(row.gain)} ({metric_name(row.metric)} "
            f"{format_score(row.base, 'kid')} to {format_score(row.finetuned, 'kid')}, gain "
            f"{format_score(row.gain, 'kid')}{share})"
        )
    return "; ".join(parts)
