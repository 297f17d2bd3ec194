"""Quality against cost: the points, axes and floor that every such chart has in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mmd_ddm.evaluation.scores import format_number, score

__all__ = ["PLAIN", "curves", "draw_floor", "kid_points", "scale_axes"]

PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))


def kid_points(rows: Sequence[dict[str, Any]], space: str) -> list[tuple[float, float, float]]:
    """NFE, KID and its standard error in thousandths, of the rows that know them."""
    points = []
    for row in rows:
        found = score((row.get("spaces") or {}).get(space) or {}, "kid")
        if found is not None and row.get("nfe"):
            points.append((float(row["nfe"]), 1000 * found.value, 1000 * found.se))
    return points


def curves(
    rows: Sequence[dict[str, Any]], keys: Sequence[str], space: str
) -> dict[tuple[str, ...], list[tuple[float, float, float]]]:
    """The points of rows that agree in these keys, by increasing cost."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault(tuple(str(row.get(key)) for key in keys), []).append(row)
    found = {key: sorted(kid_points(same, space)) for key, same in alike.items()}
    return {key: points for key, points in found.items() if points}


def scale_axes(axes: Axes, points: np.ndarray) -> None:
    """Costs on a logarithmic axis, marked as `kid_points` come; KID too if that spreads widely."""
    nfe, kid = points[:, 0], points[:, 1]
    axes.set_xscale("log")
    axes.set_xlim(nfe.min() / 1.25, nfe.max() * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(_apart(nfe.tolist())))
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_locator(NullLocator())
    if kid.min() > 0 and kid.max() > 5 * kid.min():
        axes.set_yscale("log", nonpositive="clip")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PLAIN)


def _apart(ticks: Sequence[float]) -> list[float]:
    """Those ticks that do not run into an earlier one of the list on a logarithmic axis."""
    kept: list[float] = []
    for tick in ticks:
        if all(max(tick, other) > 1.15 * min(tick, other) for other in kept):
            kept.append(tick)
    return kept


def draw_floor(axes: Axes, about: dict[str, Any], lowest: float, colour: str) -> None:
    """The floor of a space, if known: a line, or a note where a logarithmic axis ends above it."""
    found = score(about.get("floor") or {}, "kid")
    if found is None:
        return
    floor = found.times(1000.0).value
    if axes.get_yscale() == "linear" or floor > lowest / 20:
        dashes = (0, (4, 3))
        axes.axhline(
            floor, color=colour, linestyle=dashes, linewidth=1.4, zorder=2, label="real vs real"
        )
        return
    axes.set_ylim(bottom=lowest / 2.5)  # room for the note below every point
    axes.text(
        0.02, 0.03, f"real vs real: {format_number(floor)}, below the axis", color=colour,
        transform=axes.transAxes, verticalalignment="bottom",
    )  # fmt: skip
