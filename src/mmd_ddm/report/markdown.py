"""Runs and comparisons as Markdown; a model card is put together from the same."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report.headline import headline
from mmd_ddm.report.record import commands, environment, flatten, loading_code
from mmd_ddm.report.results import comparison_table, results_table
from mmd_ddm.report.runs import Run
from mmd_ddm.report.tables import Table, escape

__all__ = ["comparison_markdown", "facts", "fence", "run_markdown"]


def facts(entries: Mapping[str, object]) -> str:
    """Keys and values as a table of two columns."""
    lines = [[key, str(value)] for key, value in entries.items()]
    return Table(["", ""], {"": lines}, words=2).markdown()


def fence(code: str, language: str = "") -> str:
    """A block of code; a fence longer than any inside."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{ticks}{language}\n{code}\n{ticks}"


def run_markdown(run: Run, out: Path) -> str:
    """A run with its finding, verdict, table, picture, commands and record.

    Args:
        run: the run.
        out: the file it is for: the picture is linked from there.
    """
    top, judged, snippet = headline(run.results), verdict(run.results), loading_code(run)
    parts = [
        f"# {escape(top.finding)}",
        f"{escape(run.name)}: {escape(top.model)}, {escape(top.steps)} steps.",
        f"**{escape(judged.sentence)}** {escape(top.measured)}",
        *([escape(top.budgets)] if top.budgets else []),
    ]
    if pairs := run.picture("pairs.png"):
        link = Path(os.path.relpath(pairs.resolve(), out.resolve().parent)).as_posix()
        link = quote(os.fsencode(link))
        parts.append(f"![Base above, finetuned below, real images at the right](<{link}>)")
    parts += [
        results_table(run.results).markdown(),
        f"Rule of the verdict: {escape(judged.rule)}",
        *([f"## Load\n\n{fence(snippet, 'python')}"] if snippet else []),
        f"## Commands\n\n{fence(commands(run))}",
        f"## Protocol\n\n{facts(flatten(run.results.get('protocol') or {}))}",
        f"## Versions\n\n{facts(environment(run.about))}",
    ]
    return "\n\n".join(parts)


def comparison_markdown(results: dict[str, Any]) -> str:
    """The table, with what it was measured in and how."""
    roles = ", ".join(f"{space}: {about['role']}" for space, about in results["spaces"].items())
    notes = [f"{key}: {value}" for key, value in results["protocol"].items()] + results["notes"]
    lines = "\n".join(f"- {escape(note)}" for note in notes)
    return (
        f"# Samplers on {escape(results['model'])}\n\n{comparison_table(results).markdown()}\n\n"
        f"Spaces: {escape(roles)}.\n\n{lines}"
    )
