"""Was the gain real? Feature spaces that finetuning optimised against spaces it never saw.

An MMD in one feature space can fall by changes that no one sees and no other network notices:
changes in the null space of the images that matter. So the verdict rests on the held-out spaces,
by a rule stated in full on every page.
"""

from dataclasses import dataclass
from typing import Any

from mmd_ddm.report.table import Row, before_after, format_percent, format_score

__all__ = ["RULE", "Verdict", "verdict"]

RULE = (
    "KID at the same number of steps, base against finetuned. An improvement counts when it "
    "exceeds two combined standard errors. Real gain: every held-out space improves and closes "
    "at least half as large a share of its gap to real images as the optimised spaces close on "
    "average. Part null-space: every held-out space improves, but one closes less than half that "
    "share. Gamed: an optimised space improves and a held-out space does not. No gain: "
    "neither. Selection spaces chose the checkpoint, so they are not counted."
)


@dataclass(frozen=True)
class Verdict:
    """A judgement of one run.

    Attributes:
        sentence: the finding with its numbers.
        rule: how it was reached; the same for every run.
        label: ``real gain``, ``part null-space``, ``gamed``, ``no gain`` or ``not judged``.
    """

    sentence: str
    rule: str
    label: str


def verdict(results: dict[str, Any]) -> Verdict:
    """Judge a run by its KID rows.

    Args:
        results: the content of ``results.json``.
    """
    kid = [row for row in before_after(results) if row.metric == "kid"]
    held_out = [row for row in kid if row.role == "held-out"]
    optimised = [row for row in kid if row.role == "optimised"]
    sentence, label = _judge(held_out, optimised)
    return Verdict(sentence, RULE, label)


def _judge(held_out: list[Row], optimised: list[Row]) -> tuple[str, str]:
    missing = _missing(held_out, "held-out") or _missing(optimised, "optimised")
    if missing:
        return f"Not judged: {missing}.", "not judged"
    failed = [row for row in held_out if not _improves(row)]
    if failed and any(map(_improves, optimised)):
        return f"Gamed: {_gains(optimised)}, but {_gains(failed)}.", "gamed"
    if failed:
        return f"No gain: {_gains(optimised + failed)}.", "no gain"
    no_gap = [row.space for row in held_out + optimised if row.share is None]
    if no_gap:
        return f"Not judged: no gap to real images is known in {', '.join(no_gap)}.", "not judged"
    finding = f"of the gap to real images, {_shares(held_out)} against {_shares(optimised)}"
    bar = 0.5 * sum(row.share or 0.0 for row in optimised) / len(optimised)
    if all((row.share or 0.0) >= bar for row in held_out):
        return f"Real gain: {finding}.", "real gain"
    return f"Part null-space: {finding}.", "part null-space"


def _missing(rows: list[Row], role: str) -> str | None:
    if not rows:
        return f"no {role} space was evaluated"
    for row in rows:
        if row.base is None or row.finetuned is None:
            return f"{row.space} lacks the KID of base or finetuned at the same number of steps"
        if not (row.base.se and row.finetuned.se):
            return f"{row.space} lacks a standard error of its KID"
    return None


def _improves(row: Row) -> bool:
    return row.gain is not None and row.gain.significant


def _gains(rows: list[Row]) -> str:
    parts = []
    for row in rows:
        how = "improves" if _improves(row) else "does not improve"
        parts.append(
            f"{row.role} {row.space} {how} "
            f"(KID x1000 {format_score(row.base, 'kid')} to {format_score(row.finetuned, 'kid')})"
        )
    return ", ".join(parts)


def _shares(rows: list[Row]) -> str:
    parts = [f"{format_percent(row.share, scale=100.0)} closed in {row.space}" for row in rows]
    return f"{', '.join(parts)} ({rows[0].role})"
