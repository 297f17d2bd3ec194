"""Tables in a terminal of 80 columns."""

from dataclasses import replace
from typing import Any

from rich import box
from rich.table import Table as RichTable

from mmd_ddm.cli.console import console
from mmd_ddm.evaluation.scores import budgets_in
from mmd_ddm.report import verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.results import comparison_table, results_table
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
    print_table(_results(results))
    if "speedup" not in results:
        return
    top = headline(results)
    console.print(f"{top.finding}.")
    if top.budgets:
        console.print(top.budgets)
    judged = verdict(results)
    console.print(judged.sentence)
    console.print(f"Rule: {judged.rule}", style="dim")


def _results(results: dict[str, Any]) -> Table:
    """A star instead of the role, and no column without a value: the rest fits a terminal.

    Of several numbers of steps KID in the held-out spaces alone.
    """
    table = results_table(results)
    # The selection space is neither optimised nor a judge; the report has it.
    lines = [line for line in table.lines if line[1] != "selection"] or table.lines
    if budgets_in(results):
        lines = [x for x in lines if (x[1], x[2]) == ("held-out", "KID x1000")] or lines
    optimised = any(line[1] == "optimised" for line in lines)
    lines = [
        [space + " *" * (role == "optimised"), role, metric.removesuffix(" x1000"), *scores]
        for space, role, metric, *scores in lines
    ]
    cells = zip(table.columns, *lines, strict=True)
    empty = [title for title, *column in cells if set(column) == {"\N{EN DASH}"}]
    kept = replace(table, groups={"": lines}).without("role", "gap closed", *empty)
    titles = [title.replace(", ", "\n").replace(" vs ", "\nvs ") for title in kept.columns]
    said = "* optimised; no other space was. " if optimised else ""
    return replace(kept, columns=titles, words=len(titles), caption=f"{said}KID in thousandths")


def print_bench(results: dict[str, Any]) -> None:
    """The table as 80 columns hold it: spaces by number, FD without its error, no differences.

    The spacing is a column only where the base has several; the order is in the files.
    """
    table, spaces = comparison_table(results).without("order"), list(results["spaces"])
    table = table.without(*(title for title in table.columns if title.endswith("above best")))
    if len({row["spacing"] for row in results["rows"] if row["name"] == "base"}) < 2:
        table = table.without("spacing")
    titles = []
    for title in table.columns:
        space, _, metric = title.removesuffix(" x1000").rpartition(" ")
        titles.append(f"{metric} {1 + spaces.index(space)}" if space in spaces else title)
    bare = {i for i, title in enumerate(titles) if title.startswith("FD ")}
    groups = {
        title: [
            [cell.partition(" ±")[0] if i in bare else cell for i, cell in enumerate(line)]
            for line in lines
        ]
        for title, lines in table.groups.items()
    }
    numbered = ", ".join(f"{number} {space}" for number, space in enumerate(spaces, 1))
    caption = f"KID in thousandths, and FD, in {numbered}"
    print_table(replace(table, columns=titles, groups=groups, caption=caption), gap=0)
