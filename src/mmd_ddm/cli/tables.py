"""Tables in a terminal of 80 columns."""

from typing import Any

from rich import box
from rich.table import Table as RichTable

from mmd_ddm.cli.console import console
from mmd_ddm.report import verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.narrow import narrow_comparison, narrow_results
from mmd_ddm.report.tables import Strong, Table

__all__ = ["print_bench", "print_results", "print_table"]


def print_table(table: Table, gap: int = 1) -> None:
    """Print it: a cell that is too long, as the name of a run or a space may be, is folded.

    Args:
        table: groups are parted by an empty line.
        gap: spaces between columns, beside the one that is always there.
    """
    shown = RichTable(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), caption=table.below or None)
    for i, title in enumerate(table.columns):
        shown.add_column(title, justify="left" if i < table.words else "right", overflow="fold")
    for lines in table.groups.values():
        for line in lines:
            style = "bold" if isinstance(line[0], Strong) else None
            shown.add_row(*line, style=style, end_section=line is lines[-1])
    console.print(shown)


def print_results(results: dict[str, Any]) -> None:
    """The before/after table and, where there is an after, the verdict."""
    print_table(narrow_results(results))
    if "speedup" not in results:
        return
    top = headline(results)
    console.print(f"{top.finding}.")
    if top.budgets:
        console.print(top.budgets)
    judged = verdict(results)
    console.print(judged.sentence)
    console.print(f"Rule: {judged.rule}", style="dim")


def print_bench(results: dict[str, Any]) -> None:
    """The comparison of samplers."""
    print_table(narrow_comparison(results), gap=0)
