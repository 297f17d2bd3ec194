"""The files of a comparison that people read: its tables, and a picture of KID against cost."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmd_ddm.report.axes import curves, draw_curve, draw_floor, scale_axes
from mmd_ddm.report.markdown import comparison_markdown
from mmd_ddm.report.results import (
    comparison_numbers,
    comparison_table,
    sampler_label,
    shown_rows,
)
from mmd_ddm.report.tables import csv_text
from mmd_ddm.runs.files import atomic_write, write_text

__all__ = ["write_bench_chart", "write_bench_tables"]

_KEYS = ("name", "model", "sampler", "spacing")
_LINES = ("-", "--", ":", "-.")
_ACCENT, _FLOOR = "#d1274b", "#777777"


def write_bench_tables(results: dict[str, Any], folder: Path) -> None:
    """Write ``bench.md``, ``bench.tex`` and ``bench.csv``."""
    for ending, text in (
        ("md", comparison_markdown(results) + "\n"),
        ("tex", comparison_table(results).latex()),
        ("csv", csv_text(*comparison_numbers(results))),
    ):
        write_text(folder / f"bench.{ending}", text)


@matplotlib.rc_context({"text.parse_math": False})  # names may hold any sign
def write_bench_chart(results: dict[str, Any], path: Path) -> None:
    """KID against network calls, a panel a space, a line a sampler and spacing.

    Of samplers that are shown at their best, a line goes over their spacings.
    """
    spaces = list(results["spaces"])
    shown = [{**row, "spacing": ""} if "shown" in row else row for row in shown_rows(results)]
    samplers = list(dict.fromkeys(r["sampler"] for r in shown if r["name"] == "base"))
    spacings = list(dict.fromkeys(r["spacing"] for r in shown if r["name"] == "base"))
    colours = matplotlib.colormaps["tab20"]
    figure = Figure(figsize=(1.5 + 4.6 * len(spaces), 5), layout="constrained")
    panels = figure.subplots(1, len(spaces), squeeze=False)[0]
    for axes, space in zip(panels, spaces, strict=True):
        every = []
        for key, points in curves(shown, _KEYS, space).items():
            row = dict(zip(_KEYS, key, strict=True))
            label, style = (
                sampler_label(row),
                {"color": _ACCENT, "marker": "D", "markersize": 8, "zorder": 4},
            )
            if row["name"] == "base":
                label += f", {row['spacing']}" if spacings[1:] else ""
                colour = colours(samplers.index(row["sampler"]) % 20)
                line = _LINES[spacings.index(row["spacing"]) % 4]
                style = {"color": colour, "marker": "o", "markersize": 4, "linestyle": line}
            above = [point for point in points if point[1] > 0]  # others have no logarithm
            every += above
            draw_curve(axes, above, capsize=2, label=label, **style)
        about = results["spaces"][space]
        axes.set(title=f"{space} ({about['role']})", xlabel="network calls (NFE)")
        axes.set_ylabel("KID x1000")
        axes.grid(alpha=0.3)
        if every:
            scale_axes(axes, np.array(sorted(every)))
            draw_floor(axes, about, min(kid for _, kid, _ in every), _FLOOR)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=130)
