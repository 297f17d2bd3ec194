"""The finding of a run in one line, and the numbers that carry it."""

from dataclasses import dataclass
from typing import Any

from mmd_ddm.evaluation.scores import Row, before_after, contest, format_percent, format_score
from mmd_ddm.evaluation.verdict import verdict

__all__ = ["Headline", "headline"]


@dataclass(frozen=True)
class Headline:
    """What the top of the page says, as text; empty where the results do not say.

    Attributes:
        model: the base model's name.
        steps: K.
        space: the feature space that carries the headline; the numbers below are its KID.
        role: that space's role.
        finding: one line.
        measured: how the finding was measured.
        ratio: base steps per finetuned step at equal quality.
        gain: base less finetuned, in thousandths as both; ``change`` is the same in percent.
        share: share of the gap to real images that was closed.
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


def headline(results: dict[str, Any]) -> Headline:
    """Read the headline from ``results.json``, for every place that shows one."""
    finetuned, _ = contest(results)
    named = finetuned or next(iter(results["rows"]), {})
    model, steps = str(named.get("model", "model")), str(named.get("steps", "?"))
    speedup = results.get("speedup") or {}
    row = _carrier(before_after(results), speedup.get("space"))
    finding, ratio = _finding(speedup)
    label, beats = verdict(results).label, speedup.get("beaten_steps") is not None
    if label in ("gamed", "worse"):
        finding, ratio = f"No real gain at {steps} steps", ""
    elif beats and label != "real gain":  # nothing is praised that the verdict does not hold
        finding, ratio = f"No gain was shown at {steps} steps", ""
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
    )


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
