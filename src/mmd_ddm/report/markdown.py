"""Runs as Markdown: the table for a README, and what a model card is put together from."""

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmd_ddm.evaluation.scores import short_names, table_lines
from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.record import commands, environment, flatten, loading_code
from mmd_ddm.report.runs import Run

__all__ = ["MARK", "escape", "facts", "fence", "markdown", "results_table", "table"]

MARK = "<!-- mmd-ddm report -->"


def escape(text: object) -> str:
    """Text that stands for itself in a line, or a cell, of Markdown."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    for special in "\\`*|":
        line = line.replace(special, f"\\{special}")
    return line.replace("](", "]\\(")


def table(header: Sequence[str], lines: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table of cells that are Markdown already; columns after ``words`` are aligned right."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def facts(entries: Mapping[str, object]) -> str:
    """Keys and values as a table of two columns."""
    return table(["", ""], [[escape(k), escape(v)] for k, v in entries.items()], words=2)


def fence(code: str, language: str = "") -> str:
    """A block of code; a fence longer than any inside."""
    ticks = "`" * max(3, 1 + max((len(run) for run in _backticks(code)), default=0))
    return f"{ticks}{language}\n{code}\n{ticks}"


def _backticks(code: str) -> list[str]:
    return "".join(c if c == "`" else " " for c in code).split()


def results_table(run: Run) -> str:
    """Base, finetuned and floor, a line per metric and space; finetuned in bold."""
    header, *lines = table_lines(run.results)
    short = short_names(list(run.results["spaces"]))
    after = 4
    body = [
        [escape(short[line[0]]), *map(escape, line[1:after]), f"**{escape(line[after])}**"]
        + [escape(cell) for cell in line[after + 1 :]]
        for line in lines
    ]
    return table([escape(cell) for cell in header], body, words=3)


def markdown(runs: Sequence[Run], out: Path) -> str:
    """Every run with its finding, verdict, table, picture, commands and record.

    Args:
        runs: at least one.
        out: the file it is for: pictures are linked from there.
    """
    return "\n\n".join([MARK, *(_section(run, out) for run in runs)]) + "\n"


def _section(run: Run, out: Path) -> str:
    top, judged, snippet = headline(run.results), verdict(run.results), loading_code(run)
    parts = [
        f"# {escape(top.finding)}",
        f"{escape(run.folder.resolve().name)}: {escape(top.model)}, {escape(top.steps)} steps.",
        f"**{escape(judged.sentence)}** {escape(top.measured)}",
    ]
    if run.pairs:
        link = Path(os.path.relpath(run.pairs.resolve(), out.resolve().parent)).as_posix()
        parts.append(f"![Base above, finetuned below, real images at the right](<{link}>)")
    parts += [
        results_table(run),
        f"Rule of the verdict: {escape(judged.rule)}",
        *([f"## Load\n\n{fence(snippet, 'python')}"] if snippet else []),
        f"## Commands\n\n{fence(commands(run))}",
        f"## Protocol\n\n{facts(flatten(run.results.get('protocol') or {}))}",
        f"## Versions\n\n{facts(environment(run.about))}",
    ]
    return "\n\n".join(parts)
