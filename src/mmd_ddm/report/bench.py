"""A comparison of samplers as text, Markdown, CSV and one picture of quality against NFE.

Lines are sorted by steps, and then by KID in the first space; finetuned models stand out.
"""

import csv
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mmd_ddm.evaluation.scores import format_number, format_score, score
from mmd_ddm.report.figures import apart
from mmd_ddm.report.markdown import escape, table

__all__ = ["bench_lines", "write_bench_chart", "write_bench_tables"]

_METRICS = {"kid": "KID x1000", "fd": "FD"}
_DASH = "\N{EN DASH}"
_LINES = {0: "-", 1: "--", 2: ":", 3: "-."}
_ACCENT, _FLOOR = "#d1274b", "#777777"


def bench_lines(results: dict[str, Any]) -> list[tuple[bool, list[str]]]:
    """The header, a line a row and the floor: whether to emphasise it, and its cells."""
    columns = [(space, metric) for space in results["spaces"] for metric in _METRICS]
    header = ["sampler", "spacing", "steps", "NFE"]
    header += [f"{space} {_METRICS[metric]}" for space, metric in columns]
    lines = [(False, [*header, "s/image"])]
    for row in _sorted_rows(results):
        scores = [_cell(row["spaces"].get(space), metric) for space, metric in columns]
        cells = [_label(row), str(row["spacing"]), str(row["steps"]), str(row["nfe"])]
        speed = format_number(1 / row["images_per_second"])
        lines.append((row["name"] == "finetuned", [*cells, *scores, speed]))
    floors = [_cell(results["spaces"][space].get("floor"), metric) for space, metric in columns]
    lines.append((False, ["real vs real", _DASH, _DASH, _DASH, *floors, _DASH]))
    return lines


def write_bench_tables(results: dict[str, Any], folder: Path) -> None:
    """Write ``bench.md`` and ``bench.csv``."""
    (folder / "bench.md").write_text(_markdown(results), encoding="utf-8")
    head = ["name", "model", "sampler", "spacing", "steps", "nfe", "seeds"]
    columns = [
        (space, metric)
        for space in results["spaces"]
        for metric in ("kid", "kid_se", "fd", "fd_se")
    ]
    with (folder / "bench.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        scored = [f"{space} {metric}" for space, metric in columns]
        writer.writerow([*head, "seconds_per_image", *scored])
        for row in _sorted_rows(results):
            scores = [row["spaces"].get(space, {}).get(metric, "") for space, metric in columns]
            seconds = round(1 / row["images_per_second"], 6)
            writer.writerow([*(row[key] for key in head), seconds, *scores])


def write_bench_chart(results: dict[str, Any], path: Path) -> None:
    """KID against network calls, a panel a space, a line a sampler and spacing."""
    spaces = list(results["spaces"])
    samplers = list(dict.fromkeys(r["sampler"] for r in results["rows"] if r["name"] == "base"))
    spacings = list(dict.fromkeys(r["spacing"] for r in results["rows"] if r["name"] == "base"))
    colours = matplotlib.colormaps["tab20"]
    figure = Figure(figsize=(1.5 + 4.6 * len(spaces), 5), layout="constrained")
    panels = figure.subplots(1, len(spaces), squeeze=False)[0]
    for axes, space in zip(panels, spaces, strict=True):
        for row_name, label, rows in _series(results):
            points = _points(rows, space)
            if row_name == "finetuned":
                style = {"color": _ACCENT, "marker": "D", "markersize": 8, "zorder": 4}
            else:
                colour = colours(samplers.index(rows[0]["sampler"]) % 20)
                line = _LINES[spacings.index(rows[0]["spacing"]) % 4]
                style = {"color": colour, "marker": "o", "markersize": 4, "linestyle": line}
            axes.errorbar(*points[:2], yerr=1.96 * points[2], capsize=2, label=label, **style)
        _finish(axes, space, results)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def _series(results: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Name, label and rows of every line of the chart."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    many = len({row["spacing"] for row in results["rows"] if row["name"] == "base"}) > 1
    for row in results["rows"]:
        spacing = f", {row['spacing']}" if many and row["name"] == "base" else ""
        lines.setdefault((row["name"], _label(row) + spacing), []).append(row)
    return [(name, label, rows) for (name, label), rows in lines.items()]


def _points(rows: list[dict[str, Any]], space: str) -> np.ndarray:
    """NFE, KID and its standard error, one column a row; a KID below zero has no logarithm."""
    scores = [score(row["spaces"].get(space) or {}, "kid") for row in rows]
    found = [
        (row["nfe"], 1000 * s.value, 1000 * s.se)
        for row, s in zip(rows, scores, strict=True)
        if s is not None and s.value > 0
    ]
    return np.array(sorted(found), dtype=float).reshape(-1, 3).T


def _finish(axes: Axes, space: str, results: dict[str, Any]) -> None:
    about = results["spaces"][space]
    floor = score(about.get("floor") or {}, "kid")
    if floor is not None and floor.value > 0:
        axes.axhline(1000 * floor.value, color=_FLOOR, linestyle=(0, (4, 3)), label="real vs real")
    nfe = sorted({row["nfe"] for row in results["rows"]})
    axes.set(xscale="log", title=f"{space} ({about['role']})", xlabel="network calls (NFE)")
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylabel("KID x1000")
    axes.xaxis.set_major_locator(FixedLocator(apart(nfe)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)


def _sorted_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    space = next(iter(results["spaces"]))
    return sorted(results["rows"], key=lambda row: (row["steps"], row["spaces"][space]["kid"]))


def _label(row: dict[str, Any]) -> str:
    if row["name"] == "base":
        return str(row["sampler"])
    return f"finetuned {Path(row['model']).name} ({row['sampler']})"


def _cell(scores: dict[str, float] | None, metric: str) -> str:
    return format_score(score(scores or {}, metric), metric)


def _markdown(results: dict[str, Any]) -> str:
    (_, header), *lines = bench_lines(results)
    body = [
        [f"**{escape(c)}**" if strong else escape(c) for c in cells] for strong, cells in lines
    ]
    text = [f"# Samplers on {escape(results['model'])}", ""]
    text.append(table([escape(cell) for cell in header], body, words=2))
    roles = ", ".join(f"{space}: {about['role']}" for space, about in results["spaces"].items())
    text += ["", f"Spaces: {roles}.", ""]
    text += [f"- {key}: {value}" for key, value in results["protocol"].items()]
    text += [f"- {note}" for note in results["notes"]]
    return "\n".join(text) + "\n"
