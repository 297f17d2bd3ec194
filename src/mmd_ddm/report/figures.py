"""Charts as inline SVG that take their colours from the page, so light, dark and print all suit.

Each colour is drawn as a placeholder and replaced by a CSS variable; text stays text in the
page's font; ids are prefixed, since several charts share one page.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmd_ddm.report.axes import PLAIN, curves, draw_curve, draw_floor, scale_axes

__all__ = ["loss_chart", "quality_chart", "selection_chart"]

_INK, _MUTED, _LINE, _BASE, _FINETUNED, _FLOOR = (f"#01020{i}" for i in range(1, 7))
_VARIABLES = {
    _INK: "ink", _MUTED: "muted", _LINE: "line", _BASE: "base", _FINETUNED: "accent",
    _FLOOR: "floor",
}  # fmt: skip
_SIZE = (4.8, 3.1)  # inches: 346 units wide, so text keeps its size on a phone
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _LINE,
    "ytick.labelcolor": _MUTED,
    "ytick.major.size": 0,
}


class _Chart:
    """One pair of axes, and its way into the page."""

    def __init__(self, name: str, x_label: str) -> None:
        self.name = name
        self.style = {**_STYLE, "svg.hashsalt": name}
        with matplotlib.rc_context(self.style):
            self.figure = Figure(figsize=_SIZE, layout="constrained")
            FigureCanvasSVG(self.figure)
            self.axes: Axes = self.figure.add_subplot()
            self.axes.set_xlabel(x_label)
            self.axes.grid(visible=False, axis="x")

    def svg(self, title: str) -> Markup:
        buffer = io.StringIO()
        with matplotlib.rc_context(self.style):
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return _inline(buffer.getvalue(), self.name, title)


def _inline(svg: str, name: str, title: str) -> Markup:
    (box,) = re.findall(r'viewBox="([^"]+)"', svg)[:1]
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    for placeholder, variable in _VARIABLES.items():
        body = body.replace(placeholder, f"var(--{variable})")
    head = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, title)
    return head + Markup(body)


def quality_chart(
    results: dict[str, Any], space: str, name: str, solvers: Sequence[dict[str, Any]] = ()
) -> Markup | None:
    """KID in one space against network evaluations: base rows, finetuned rows, the floor.

    Args:
        results: the content of ``results.json``.
        space: the feature space.
        name: unique in the page; starts with a letter.
        solvers: rows of the base under other samplers; the best of each cost is drawn, by name.
    """
    lines = curves(results["rows"], ("name", "sampler", "spacing", "eta"), space)
    if not lines:
        return None
    chart = _Chart(name, "network evaluations per image (NFE)")
    for drawn, points in lines.items():
        colour, marker, front = (_BASE, "o", 3) if drawn[0] == "base" else (_FINETUNED, "D", 4)
        look = {"color": colour, "marker": marker, "markersize": 6, "linewidth": 1.6}
        draw_curve(chart.axes, points, zorder=front, capsize=3, **look)
    best = _draw_solvers(chart.axes, solvers, space)
    # The run's own costs first: another sampler's may lie too near to be named as well.
    every = np.array([point for points in (*lines.values(), best) for point in points])
    scale_axes(chart.axes, every)
    draw_floor(chart.axes, results["spaces"].get(space, {}), every[:, 1].min(), _FLOOR)
    return chart.svg(f"KID x1000 in {space} against network evaluations")


def _draw_solvers(
    axes: Axes, rows: Sequence[dict[str, Any]], space: str
) -> list[tuple[float, float, float]]:
    """The lowest KID of other samplers for a cost no greater, where that cost is first of use."""
    alike = curves(rows, ("sampler",), space)
    named = [(*point, sampler) for (sampler,), points in alike.items() for point in points]
    lowest: list[tuple[float, float, float, str]] = []
    for point in sorted(named):
        if not lowest or point[1] < lowest[-1][1]:
            lowest = [p for p in lowest if p[0] < point[0]] + [point]
    for nfe, kid, _, sampler in lowest:
        axes.annotate(
            sampler, (nfe, kid), (4, 3), textcoords="offset points", color=_MUTED, fontsize=7.5,
            ha="left", va="bottom",  # the line falls: above it there is room
        )  # fmt: skip
    best = [point[:3] for point in lowest]
    look = {"color": _FLOOR, "marker": "s", "markersize": 5, "linestyle": ":", "linewidth": 1.4}
    draw_curve(axes, best, zorder=3, capsize=3, **look)
    return best


def loss_chart(events: Sequence[dict[str, Any]], name: str) -> Markup | None:
    """The training loss, and its running mean over a twentieth of the run, with 1.96 errors."""
    points = _series([e for e in events if e.get("event") == "train"], "loss")
    if len(points) < 2:
        return None
    width = max(1, len(points) // 20)
    windows = np.lib.stride_tricks.sliding_window_view(points, width, axis=0)
    step, mean = windows.mean(-1).T
    error = windows[:, 1].std(-1, ddof=min(1, width - 1)) / np.sqrt(width)
    chart = _Chart(name, "step")
    chart.axes.plot(*points.T, color=_BASE, linewidth=0.8, alpha=0.45)
    _draw_band(chart.axes, step, mean, error)
    return chart.svg("Training loss against step")


def _draw_band(
    axes: Axes, step: np.ndarray, mean: np.ndarray, error: np.ndarray, **look: Any
) -> None:
    """A line with 1.96 of its standard errors to either side."""
    low, high = mean - 1.96 * error, mean + 1.96 * error
    axes.fill_between(step, low, high, color=_FINETUNED, alpha=0.18, linewidth=0)
    axes.plot(step, mean, color=_FINETUNED, linewidth=1.8, **look)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def selection_chart(events: Sequence[dict[str, Any]], space: str, name: str) -> Markup | None:
    """KID in one space during training, with a band of 1.96 standard errors; the best marked."""
    found = [e for e in events if e.get("event") == "eval" and e.get("space") == space]
    points = _series(found, "kid", "kid_se")
    if len(points) < 2:
        return None
    step, kid, se = points[:, 0], 1000 * points[:, 1], 1000 * np.nan_to_num(points[:, 2])
    chart = _Chart(name, "step")
    _draw_band(chart.axes, step, kid, se, marker="o", markersize=3.5)
    best = [e["step"] for e in found if e.get("best")][-1:]
    at = np.isin(step, best)
    chart.axes.plot(
        step[at], kid[at], "o", markersize=11, markerfacecolor="none", color=_INK, linewidth=0
    )
    chart.axes.yaxis.set_major_formatter(PLAIN)
    return chart.svg(f"KID x1000 in {space} against step")


def _series(events: Sequence[dict[str, Any]], key: str, *more: str) -> np.ndarray:
    """Rows (step, key, more ...) by step; a resumed run's later word on a step wins."""
    latest = {e["step"]: e for e in events if "step" in e}
    points = [[latest[step].get(k) for k in ("step", key, *more)] for step in sorted(latest)]
    table = np.array(points, dtype=float).reshape(len(points), 2 + len(more))
    return table[np.isfinite(table[:, 1])]
