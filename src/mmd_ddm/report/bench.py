"""The files of a comparison that people read: its tables, and a picture of KID against cost."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmd_ddm.report.axes import draw_floor, kid_points, scale_axes
from mmd_ddm.report.markdown import comparison_markdown
from mmd_ddm.report.results import comparison_numbers, comparison_table, sampler_label
from mmd_ddm.report.tables import csv_text

__all__ = ["write_bench_chart", "write_bench_tables"]

_LINES = ("-", "--", ":", "-.")
_ACCENT, _FLOOR = "#d1274b", "#777777"


def write_bench_tables(results: dict[str, Any], folder: Path) -> None:
    """Write ``bench.md``, ``bench.tex`` and ``bench.csv``."""
    for ending, text in (
        ("md", comparison_markdown(results) + "\n"),
        ("tex", comparison_table(results).latex()),
        ("csv", csv_text(*comparison_numbers(results))),
    ):
        (folder / f"bench.{ending}").write_text(text, encoding="utf-8", newline="\n")


def write_bench_chart(results: dict[str, Any], path: Path) -> None:
    """KID against network calls, a panel a space, a line a sampler and spacing."""
    spaces = list(results["spaces"])
    samplers = list(dict.fromkeys(r["sampler"] for r in results["rows"] if r["name"] == "base"))
    spacings = list(dict.fromkeys(r["spacing"] for r in results["rows"] if r["name"] == "base"))
    colours = matplotlib.colormaps["tab20"]
    figure = Figure(figsize=(1.5 + 4.6 * len(spaces), 5), layout="constrained")
    panels = figure.subplots(1, len(spaces), squeeze=False)[0]
    for axes, space in zip(panels, spaces, strict=True):
        every = []
        for name, label, rows in _series(results):
            if name == "finetuned":
                style = {"color": _ACCENT, "marker": "D", "markersize": 8, "zorder": 4}
            else:
                colour = colours(samplers.index(rows[0]["sampler"]) % 20)
                line = _LINES[spacings.index(rows[0]["spacing"]) % 4]
                style = {"color": colour, "marker": "o", "markersize": 4, "linestyle": line}
            # A KID below zero has no logarithm.
            points = sorted(point for point in kid_points(rows, space) if point[1] > 0)
            every += points
            nfe, kid, se = np.array(points).reshape(-1, 3).T
            axes.errorbar(nfe, kid, yerr=1.96 * se, capsize=2, label=label, **style)
        about = results["spaces"][space]
        axes.set(title=f"{space} ({about['role']})", xlabel="network calls (NFE)")
        axes.set_ylabel("KID x1000")
        axes.grid(alpha=0.3)
        if every:
            scale_axes(axes, np.array(sorted(every)))
            draw_floor(axes, about, min(kid for _, kid, _ in every), _FLOOR)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def _series(results: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Name, label and rows of every line of the chart."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    many = len({row["spacing"] for row in results["rows"] if row["name"] == "base"}) > 1
    for row in results["rows"]:
        spacing = f", {row['spacing']}" if many and row["name"] == "base" else ""
        lines.setdefault((row["name"], sampler_label(row) + spacing), []).append(row)
    return [(name, label, rows) for (name, label), rows in lines.items()]
