"""Was the gain real? Feature spaces that finetuning optimised against spaces it never saw.

An MMD in one feature space can fall by changes that no one sees and no other network notices:
changes in the null space of the images that matter. So the verdict rests on the held-out spaces,
by a rule stated in full on every page.
"""

from dataclasses import asdict, dataclass
from typing import Any

from mmd_ddm.evaluation.scores import Row, before_after, format_percent, format_score

__all__ = ["RULE", "Finding", "Verdict", "verdict"]

RULE = (
    "KID at the same number of steps, base against finetuned; an improvement exceeds two combined "
    "standard errors. Real gain: every held-out space improves and closes at least half as large "
    "a share of its gap to real images as the optimised spaces close on average. Part null-space: "
    "every held-out space improves, but one closes less than that. Gamed: an optimised space "
    "improves and a held-out space does not. No gain: neither. Selection spaces chose the "
    "checkpoint, so they are not counted."
)


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
        share: of the gap to real images that was closed; 1 is all of it.
        improves: by more than two combined standard errors.
    """

    role: str
    base: float | None
    finetuned: float | None
    floor: float | None
    base_se: float | None
    finetuned_se: float | None
    floor_se: float | None
    share: float | None
    improves: bool | None

    @classmethod
    def of(cls, row: Row) -> "Finding":
        """Read it from the KID row of the space."""
        scores = {"base": row.base, "finetuned": row.finetuned, "floor": row.floor}
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
        if self.improves is None:
            return "not judged"
        found = "improves" if self.improves else "does not improve"
        if self.share is None:
            return found
        return f"{found}, {format_percent(self.share, scale=100.0)} of the gap closed"


@dataclass(frozen=True)
class Verdict:
    """A judgement of one run.

    Attributes:
        label: ``real gain``, ``part null-space``, ``gamed``, ``no gain`` or ``not judged``.
        sentence: the finding with its numbers.
        rule: how it was reached; the same for every run.
        spaces: what is known of every space, by its name.
    """

    label: str
    sentence: str
    rule: str
    spaces: dict[str, Finding]

    def record(self) -> dict[str, Any]:
        """For ``results.json``."""
        return asdict(self)


def verdict(results: dict[str, Any]) -> Verdict:
    """Judge a run by its KID rows.

    Args:
        results: the content of ``results.json``.
    """
    kid = [row for row in before_after(results) if row.metric == "kid"]
    held_out = [row for row in kid if row.role == "held-out"]
    optimised = [row for row in kid if row.role == "optimised"]
    sentence, label = _judge(held_out, optimised)
    return Verdict(label, sentence, RULE, {row.space: Finding.of(row) for row in kid})


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
