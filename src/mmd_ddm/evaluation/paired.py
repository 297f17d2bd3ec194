r"""How far one row lies above another, with the error of the difference.

Two chains that began with the same noise and are compared with the same real images share most of
their luck. What is left is estimated from their projections (`mmd_ddm.maths.projections`), image
by image.

The share of its gap to real images that a space closes is s = (b - f) / (b - r), with b the base,
f the finetuned model and r the floor. Its *excess* is s less half the mean share of the optimised
spaces; the error of that is to first order as well, over all spaces at once, since they saw the
same images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmd_ddm.evaluation.scores import ABOVE_BEST, SIGNIFICANT
from mmd_ddm.maths.projections import Projections

__all__ = ["above", "above_best", "share_excess"]

Kid = Mapping[str, Projections]  # by the name of the space


def above(of: Kid, other: Kid, metric: str = "kid") -> dict[str, dict[str, float]]:
    """KID of one row less that of another, by space, for the record.

    ``kid_se_drawn`` is the share of the drawn images in the standard error: what more of them
    make smaller. The metric may be called otherwise.
    """
    found = {}
    for space, kid in of.items():
        if space not in other:
            continue
        less = kid - other[space]
        drawn = [name for name in less.parts if name != "real"]
        errors = {f"{metric}_se": less.se, f"{metric}_se_drawn": less.se_of(*drawn)}
        found[space] = {metric: less.value, **errors}
    return found


def above_best(
    rows: Sequence[Mapping[str, Any]], kids: Sequence[Kid], space: str
) -> list[dict[str, Any]]:
    """The rows, each with how far it lies above the best one of as many steps.

    Args:
        rows: of a comparison.
        kids: of every row.
        space: where the best has the lowest KID.
    """
    best: dict[int, Kid] = {}
    for row, kid in zip(rows, kids, strict=True):
        least = best.setdefault(row["steps"], kid)
        if kid[space].value < least[space].value:
            best[row["steps"]] = kid
    return [
        {**row, ABOVE_BEST: {} if kid is best[row["steps"]] else above(kid, best[row["steps"]])}
        for row, kid in zip(rows, kids, strict=True)
    ]


def share_excess(
    base: Kid, finetuned: Kid, floors: Kid, optimised: Sequence[str], judges: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Of every judge with a gap to close, if all the optimised spaces have one.

    Args:
        base: KID of the base.
        finetuned: of the finetuned model, from the same noise.
        floors: of other real images.
        optimised: spaces that were optimised.
        judges: spaces that were not.
    """
    shares: dict[str, tuple[float, Projections]] = {}
    for space in (*optimised, *judges):
        gain, gap = base[space] - finetuned[space], base[space] - floors[space]
        if gap.value > SIGNIFICANT * gap.se:
            share = gain.value / gap.value
            shares[space] = share, (gain - gap * share) * (1 / gap.value)
    if not optimised or any(space not in shares for space in optimised):
        return {}
    half = 0.5 / len(optimised)
    found = {}
    for space in judges:
        if space not in shares:
            continue
        value, spread = shares[space]
        for other in optimised:
            value -= half * shares[other][0]
            spread = spread - shares[other][1] * half
        found[space] = {"share_excess": value, "share_excess_se": spread.se}
    return found
