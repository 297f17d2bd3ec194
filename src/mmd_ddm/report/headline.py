"""The finding of a run in one line, and the numbers that carry it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmd_ddm.evaluation.scores import (
    ABOVE_FEWER,
    Row,
    Score,
    before_after,
    budgets_in,
    contest,
    format_percent,
    format_score,
    score,
)
from mmd_ddm.evaluation.verdict import listed, verdict

__all__ = ["Headline", "headline"]


@dataclass(frozen=True)
class Headline:
    """What the top of the page says, as text; empty where the results do not say.

    Attributes:
        model: the base model's name.
        steps: K; of several the one with the largest speed-up.
        space: the feature space that carries the headline; the numbers below are its KID.
        role: that space's role.
        finding: one line.
        measured: how the finding was measured.
        ratio: base steps per finetuned step at equal quality.
        gain: base less finetuned, in thousandths as both; ``change`` is the same in percent.
        share: share of the gap to real images that was closed.
        budgets: of several numbers of steps which, and where more of them draw worse.
    """

    model: str
    steps: str
    space: str
    role: str
    finding: str
    measured: str
    ratio: str
    base: str
    finetuned: str
    gain: str
    change: str
    share: str
    budgets: str


def headline(results: dict[str, Any]) -> Headline:
    """Read the headline from ``results.json``, for every place that shows one."""
    speedup, budgets = results.get("speedup") or {}, budgets_in(results)
    told = speedup.get("finetuned_steps") if budgets else None
    finetuned, _ = contest(results, told)
    named = finetuned or next(iter(results["rows"]), {})
    model, steps = str(named.get("model", "model")), str(named.get("steps", "?"))
    row = _carrier(before_after(results, told), speedup.get("space"))
    finding, ratio = _finding(speedup)
    judged, beats = verdict(results), speedup.get("beaten_steps") is not None
    over = f"over {listed(budgets)}" if budgets else f"at {steps}"
    if judged.label in ("gamed", "worse"):
        finding, ratio = f"No real gain {over} steps", ""
    elif judged.label == "not resolved" and judged.gained:
        some = f"{listed(judged.gained)} steps, of {listed(budgets)}"
        finding, ratio = f"A gain was shown at {some}", ""
    elif beats and judged.label != "real gain":  # no praise that the verdict does not hold
        finding, ratio = f"No gain was shown {over} steps", ""
    return Headline(
        model=model,
        steps=steps,
        space=row.space,
        role=row.role,
        finding=finding or f"{model} in {steps} steps",
        measured=_measured(speedup),
        ratio=ratio,
        base=format_score(row.base, "kid"),
        finetuned=format_score(row.finetuned, "kid"),
        gain=format_score(row.gain, "kid"),
        change=format_percent(row.change, signed=True),
        share=format_percent(row.share, scale=100.0),
        budgets=_over_budgets(results, budgets),
    )


def _over_budgets(results: dict[str, Any], budgets: list[int]) -> str:
    """Which, and where more steps draw worse for certain; in 2.5 % of runs by chance."""
    if not budgets:
        return ""
    judges = [space for space, about in results["spaces"].items() if about["role"] == "held-out"]
    pairs = [
        (fewer, steps, space, higher)
        for fewer, steps in pairwise(budgets)
        for space in judges
        if (higher := _above_fewer(results, steps, space)) is not None
    ]
    worse = [
        f"; {steps} steps draw worse than {fewer} in {space} (KID x1000 higher by "
        f"{format_score(higher, 'kid')})"
        for fewer, steps, space, higher in pairs
        if higher.beyond(len(pairs))
    ]
    if pairs and not worse:
        worse = ["; more steps nowhere draw worse for certain"]
    return f"One model for {listed(budgets)} steps, each on times of its own{''.join(worse)}."


def _above_fewer(results: dict[str, Any], steps: int, space: str) -> Score | None:
    found, _ = contest(results, steps)
    return score(((found or {}).get(ABOVE_FEWER) or {}).get(space) or {}, "kid")


def _carrier(rows: list[Row], wanted: str | None) -> Row:
    """The KID row of that space, else of a held-out one, else any; an empty one if none is."""
    kid = [row for row in rows if row.metric == "kid"] or [Row("", "", "kid", None, None)]
    return min(kid, key=lambda row: (row.space != wanted, row.role != "held-out"))


def _finding(speedup: dict[str, Any]) -> tuple[str, str]:
    """One line, and the ratio of steps: the truth lies between what was beaten and what beats."""
    steps, searched = speedup.get("finetuned_steps"), speedup.get("searched") or []
    if not steps or not searched:
        return "", ""
    beaten, better = speedup.get("beaten_steps"), speedup.get("base_steps")
    if beaten is None:
        if better is not None and better <= steps:
            return f"The base draws better in {better} steps: no speed-up", ""
        return f"{steps} steps draw about as well as the base's {min(searched)}: no speed-up", ""
    if beaten == max(searched):
        return f"{steps} steps now beat the base at every count tried, up to {beaten}", ""
    after = min(tried for tried in searched if tried > beaten)
    if better is None:
        return f"{steps} steps now beat the base's {beaten}, about as good as its {after}", ""
    finding = f"{steps} steps now draw what takes the base more than {beaten}, at most {better}"
    return finding, f"{max(beaten / steps, 1):g} to {better / steps:g}"


def _measured(speedup: dict[str, Any]) -> str:
    searched, space = speedup.get("searched") or [], speedup.get("space")
    if not searched or not space:
        return ""
    tried = ", ".join(map(str, searched))
    return (
        f"The base was tried at {tried} steps; what is said of a count is a difference of KID in "
        f"{space}, paired over the same noise and real images, that would be 2.5 % by chance."
    )
