"""What a comparison of methods at equal compute found, as a table for each number of steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmd_ddm.evaluation.scores import Score, format_score
from mmd_ddm.report.results import paired_cell
from mmd_ddm.report.tables import Table
from mmd_ddm.runs.files import write_text

__all__ = ["shootout_table", "write_shootout"]

Row = dict[str, Any]


def write_shootout(rows: Sequence[Row], judge: str, select: str, out: Path) -> list[Table]:
    """Write ``shootout.md``, and give its tables.

    Args:
        rows: as `mmd_ddm.jobs.shootout` makes them.
        judge: the space that decides.
        select: that by which a rate is chosen.
        out: the folder.
    """
    tables = [
        shootout_table([row for row in rows if row["steps"] == k], judge, select)
        for k in sorted({row["steps"] for row in rows})
    ]
    write_text(out / "shootout.md", "\n\n".join(table.markdown() for table in tables) + "\n")
    return tables


def shootout_table(rows: Sequence[Row], judge: str, select: str) -> Table:
    """Of one number of steps: a line a method at its best rate, chains without training first.

    Args:
        rows: of that number of steps.
        judge: the space that decides.
        select: that by which a rate is chosen, with the first seed.
    """
    names = dict.fromkeys(row["method"] for row in rows)
    free, trained = list[list[str]](), list[list[str]]()
    others = [space for space in rows[0]["spaces"] if space not in (judge, select)]
    for name in names:
        own = _at_best([row for row in rows if row["method"] == name], select)
        scores = [
            format_score(Score.of_seeds([row["spaces"][space] for row in own], "kid"), "kid")
            for space in (judge, select, *others)
        ]
        first = own[0]
        about = [name, str(first["nfe"])]
        if "cost" not in first:
            free.append([*about, "", "", "", "", scores[0], "", *scores[1:]])
            continue
        stars = [
            " *" * (space.split(":")[0] in {one.split(":")[0] for one in first["optimised"]})
            for space in others
        ]
        marked = [f"{score}{star}" for score, star in zip(scores[2:], stars, strict=True)]
        cost, rate = first["cost"], f"{first['rate']:g}"
        trained.append(
            [*about, f"{cost['each']:g}", str(cost["iterations"]), rate,
             f"{sum(row['seconds'] for row in own) / len(own):.0f}", scores[0],
             paired_cell([row["above_free"][judge] for row in own], "kid"), scores[1], *marked]
        )  # fmt: skip
    titles = [
        f"{rows[0]['steps']} steps", "calls", "F an image", "iterations", "rate", "seconds", judge,
        "above the best free", select, *others,
    ]  # fmt: skip
    said = "KID x1000; * was optimised. F: passes forward of the network"
    return Table(titles, {"no training": free, "trained": trained}, caption=said)


def _at_best(rows: Sequence[Row], select: str) -> list[Row]:
    """Those of the rate that did best with the first seed."""
    first = [row for row in rows if row["seed"] == 0]
    best = min(first, key=lambda row: row["spaces"][select]["kid"])
    return [row for row in rows if row.get("rate") == best.get("rate")]
