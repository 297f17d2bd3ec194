"""What ``rows.jsonl`` says: a table and a chart of held-out KID against network calls.

python recipes/every-k/tables.py --out docs/every-k
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mmd_ddm.evaluation.scores import Score, format_score
from mmd_ddm.report.axes import draw_curve, scale_axes
from mmd_ddm.report.results import paired_cell
from mmd_ddm.report.tables import Table
from mmd_ddm.runs.files import write_text

ORDER = (
    "free", "times", "ddim", "solver, 60 iterations", "solver, 100 iterations",
    "solver, full gradient", "solver, random calls", "solver, half the rate", "solver",
    "joint", "many",
)  # fmt: skip
ROWS = Path(__file__).parents[2] / "docs/every-k/rows.jsonl"
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--out", type=Path, required=True, help="folder of table and chart")
    asked = parser.parse_args(arguments)
    rows = [json.loads(line) for line in asked.rows.read_text(encoding="utf-8").splitlines()]
    most = max(row["samples"] for row in rows)
    rows = [row for row in rows if row["samples"] == most]  # others are another judgement
    cells: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["steps"], row["method"]), []).append(row)
    spaces = rows[0]["spaces"]
    text = "\n\n".join(table(cells, space).markdown() for space in spaces)
    asked.out.mkdir(parents=True, exist_ok=True)
    write_text(asked.out / "every-k.md", text + "\n")
    chart(cells, next(iter(spaces))).savefig(asked.out / "every-k.png", dpi=110)


def table(cells: dict[tuple[int, str], list[Row]], space: str) -> Table:
    """KID x1000 of every method at every K; below it the paired difference from training-free.

    In brackets how many seeds a mean is of, where others are of more.
    """
    methods = sorted({method for _, method in cells}, key=[*ORDER].index)
    most, lines = max(map(len, cells.values())), []
    for k in sorted({k for k, _ in cells}):
        found = [cells.get((k, method), []) for method in methods]
        seeds = [f" ({len(rows)})" if 0 < len(rows) < most else "" for rows in found]
        kids = [format_score(over(rows, space), "kid") for rows in found]
        lines.append([str(k), *map("".join, zip(kids, seeds, strict=True))])
        lines.append(["", *(_difference(rows, space) for rows in found)])
    return Table([f"{space}: K", *methods], {"": lines})


def over(rows: Sequence[Row], space: str) -> Score | None:
    """The mean over seeds."""
    return Score.of_seeds([row["spaces"][space] for row in rows], "kid") if rows else None


def _difference(rows: Sequence[Row], space: str) -> str:
    less = [row["above_free"][space] for row in rows if row["above_free"]]
    return paired_cell(less, "kid") if less else ""


def chart(cells: dict[tuple[int, str], list[Row]], space: str) -> Figure:
    """A line a method."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes, every = figure.subplots(), []
    for method in sorted({method for _, method in cells}, key=[*ORDER].index):
        points = [
            (float(rows[0]["nfe"]), 1000 * found.value, 1000 * found.se)
            for (_, of), rows in sorted(cells.items())
            if of == method and (found := over(rows, space)) is not None
        ]
        every += points
        draw_curve(axes, points, label=method, marker="o", markersize=4, capsize=2)
    axes.set(xlabel="network calls", ylabel="KID x1000", title=f"{space} (held out)")
    axes.grid(alpha=0.3)
    scale_axes(axes, np.array(sorted(every)))
    axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
