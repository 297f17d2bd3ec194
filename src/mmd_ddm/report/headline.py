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
    """Read the headline from ``results.json``."""
    finetuned, _ = contest(results)
    named = finetuned or next(iter(results["rows"]), {})
    model, steps = str(named.get("model", "model")), str(named.get("steps", "?"))
    speedup = results.get("speedup") or {}
    row = _carrier(before_after(results), speedup.get("space"))
    finding, ratio = _finding(speedup)
    if verdict(results).label in ("gamed", "no gain"):
        finding, ratio = f"No real gain at {steps} steps", ""
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
    """One line, and the ratio of steps."""
    steps, base_steps = speedup.get("finetuned_steps"), speedup.get("base_steps")
    searched = speedup.get("searched") or []
    if not steps:
        return "", ""
    if base_steps is None:
        if not searched:
            return "", ""
        return f"{steps} steps now beat the base at every count tried, up to {max(searched)}", ""
    if base_steps <= steps:
        return f"The base draws as well in {base_steps} steps: no speed-up", ""
    # The truth lies between two counts that were tried: neither end alone is claimed.
    below = max((tried for tried in searched if tried < base_steps), default=0)
    finding = f"{steps} steps now draw what takes the base more than {below}, at most {base_steps}"
    return finding, f"{max(below / steps, 1):g} to {base_steps / steps:g}"


def _measured(speedup: dict[str, Any]) -> str:
    searched, space = speedup.get("searched") or [], speedup.get("space")
    if not searched or not space:
        return ""
    tried = ", ".join(map(str, searched))
    if speedup.get("base_steps") is None:
        return f"The base, tried at {tried} steps, never reached the finetuned KID in {space}."
    return (
        f"Of the step counts tried with the base ({tried}), {speedup['base_steps']} is the "
        f"smallest whose KID in {space} is as low as the finetuned model's."
    )
