"""Quality against cost: the points, axes and floor that every such chart has in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mmd_ddm.evaluation.scores import format_number, score

__all__ = ["PLAIN", "curves", "draw_curve", "draw_floor", "scale_axes"]

PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))


def curves(
    rows: Sequence[dict[str, Any]], keys: Sequence[str], space: str
) -> dict[tuple[str, ...], list[tuple[float, float, float]]]:
    """NFE, KID and its standard error in thousandths, by NFE, of the rows alike in these keys."""
    found: dict[tuple[str, ...], list[tuple[float, float, float]]] = {}
    for row in rows:
        kid = score((row.get("spaces") or {}).get(space) or {}, "kid")
        if kid is not None and row.get("nfe"):
            point = (float(row["nfe"]), 1000 * kid.value, 1000 * kid.se)
            found.setdefault(tuple(str(row.get(key)) for key in keys), []).append(point)
    return {key: sorted(points) for key, points in found.items()}


def draw_curve(axes: Axes, points: Sequence[tuple[float, float, float]], **look: Any) -> None:
    """Points with 1.96 of their standard errors to either side."""
    nfe, kid, se = np.array(points).reshape(-1, 3).T
    axes.errorbar(nfe, kid, yerr=1.96 * se, **look)


def scale_axes(axes: Axes, points: np.ndarray) -> None:
    """Costs on a logarithmic axis, marked in the order of the points; wide-spread KID as well."""
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
        axes.axhline(
            floor, color=colour, linestyle=(0, (4, 3)), linewidth=1.4, zorder=2,
            label="real vs real",
        )  # fmt: skip
        return
    axes.set_ylim(bottom=lowest / 2.5)  # room for the note below every point
    axes.text(
        0.02, 0.03, f"real vs real: {format_number(floor)}, below the axis", color=colour,
        transform=axes.transAxes, verticalalignment="bottom",
    )  # fmt: skip
