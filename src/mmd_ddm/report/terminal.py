"""Tables in a terminal of 80 columns, as rich prints them."""

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.narrow import narrow_comparison, narrow_results
from mmd_ddm.report.tables import Strong, Table

__all__ = ["shown", "shown_bench", "shown_results"]


def shown(table: Table, gap: int = 1) -> RichTable:
    """A cell that is too long, as the name of a run or a space may be, is folded.

    Args:
        table: groups are parted by an empty line.
        gap: spaces between columns, beside the one that is always there.
    """
    found = RichTable(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), caption=table.below or None)
    for i, title in enumerate(table.columns):
        found.add_column(title, justify="left" if i < table.words else "right", overflow="fold")
    for lines in table.groups.values():
        for line in lines:
            style = "bold" if isinstance(line[0], Strong) else None
            found.add_row(*line, style=style, end_section=line is lines[-1])
    return found


def shown_results(results: dict[str, Any]) -> Group:
    """The before/after table and, where there is an after, the verdict."""
    table = shown(narrow_results(results))
    if "speedup" not in results:
        return Group(table)
    top, judged = headline(results), verdict(results)
    said = [f"{top.finding}.", *filter(None, [top.budgets]), judged.sentence]
    return Group(table, *said, Text(f"Rule: {judged.rule}", style="dim"))


def shown_bench(results: dict[str, Any]) -> RichTable:
    """The comparison of samplers."""
    return shown(narrow_comparison(results), gap=0)
