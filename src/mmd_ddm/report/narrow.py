"""The tables of results, narrowed to the 80 columns of a terminal."""

from dataclasses import replace
from typing import Any

from mmd_ddm.evaluation.scores import budgets_in
from mmd_ddm.report.results import comparison_table, results_table
from mmd_ddm.report.tables import Table

__all__ = ["narrow_comparison", "narrow_results"]


def narrow_results(results: dict[str, Any]) -> Table:
    """Before and after: a star instead of the role, and no column without a value.

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


def narrow_comparison(results: dict[str, Any]) -> Table:
    """A comparison of samplers: spaces by number, FD without its error, no differences.

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
    return replace(table, columns=titles, groups=groups, caption=caption)
