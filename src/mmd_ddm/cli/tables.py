"""Results as tables that 80 columns hold."""

from itertools import pairwise
from typing import Any

from rich import box
from rich.table import Table

from mmd_ddm.cli.console import console
from mmd_ddm.report import short_names, table_lines, verdict

__all__ = ["print_bench", "print_results"]


def print_results(results: dict[str, Any]) -> None:
    """The before/after table and, where there is an after, the verdict."""
    header, *lines = (line[:-1] for line in table_lines(results))
    # The selection space is neither optimised nor a judge; the report has it.
    lines = [line for line in lines if "selection" not in line] or lines
    caption = "KID in thousandths"
    if any("optimised" in line for line in lines):
        caption = f"* optimised; no other space was. {caption}"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption)
    # A star instead of the role, and no column without a value: the rest fits a terminal.
    short = short_names(list(results["spaces"]))
    lines = [[short[line[0]] + " *" * ("optimised" in line), *line[2:]] for line in lines]
    every = zip([header[0], *header[2:]], *lines, strict=True)
    columns = [c for c in every if set(c[1:]) != {"\N{EN DASH}"}]
    for name, *_ in columns:
        table.add_column(name.replace(", ", "\n").replace(" vs ", "\nvs "), no_wrap=True)
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*(cell.removesuffix(" x1000") for cell in cells))
    console.print(table)
    speedup = results.get("speedup")
    if speedup is None:
        return
    steps, reached = speedup["finetuned_steps"], speedup["base_steps"]
    if reached is None and max(speedup["searched"]) > steps:
        console.print(f"{steps} steps now beat the base's {max(speedup['searched'])}.")
    elif reached and reached > steps:
        below = max((tried for tried in speedup["searched"] if tried < reached), default=0)
        takes = f"more than {below}, at most {reached}"
        console.print(f"{steps} steps now draw what takes the base {takes}.")
    judged = verdict(results)
    console.print(judged.sentence)
    console.print(f"Rule: {judged.rule}", style="dim")


def print_bench(results: dict[str, Any]) -> None:
    """The table as 80 columns hold it: spaces by number, FD without its error.

    The spacing is a column only where the base has several.
    """
    from mmd_ddm.report.bench import bench_lines

    (_, header), *lines = bench_lines(results)
    several = len({row["spacing"] for row in results["rows"] if row["name"] == "base"}) > 1
    kept = [i for i, name in enumerate(header) if several or name != "spacing"]
    spaces = ", ".join(f"{k} {space}" for k, space in enumerate(results["spaces"], 1))
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        title=f"KID in thousandths, and FD, in {spaces}",
    )
    named = max(len(row["sampler"]) for row in results["rows"])
    for i in kept:
        space, _, metric = header[i].removesuffix(" x1000").rpartition(" ")
        number = f" {1 + list(results['spaces']).index(space)}" if space else ""
        table.add_column(
            metric + number,
            width=None if i else named,  # a run, whose name may be of any length, is folded
            justify="left" if i < 2 else "right",
            no_wrap=bool(i) and metric != "KID",
            overflow="ellipsis" if i else "fold",
        )
    bare = {i for i in kept if header[i].endswith(" FD")}
    for (strong, cells), (_, after) in pairwise([*lines, lines[-1]]):
        table.add_row(
            *(cells[i].partition(" ±")[0] if i in bare else cells[i] for i in kept),
            style="bold" if strong else None,
            end_section=cells[2] != after[2],
        )
    console.print(table)
