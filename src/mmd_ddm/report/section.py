"""What the page shows of a run or of a comparison, each under the name that the template uses."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report.figures import loss_chart, quality_chart, selection_chart
from mmd_ddm.report.headline import headline
from mmd_ddm.report.record import as_table, commands, environment, flatten, loading_code
from mmd_ddm.report.results import comparison_table, results_table
from mmd_ddm.report.runs import Comparison, Run
from mmd_ddm.report.tables import Strong, Table

__all__ = ["compare_section", "overview", "run_section"]

_TITLES = {"KID x1000": "KID \N{MULTIPLICATION SIGN} 1000 ± standard error"}


class Picture(NamedTuple):
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def run_section(run: Run, anchor: str) -> dict[str, Any]:
    """A run: its headline, numbers, pictures, charts and record.

    Args:
        run: the run.
        anchor: unique in the page; starts with a letter.
    """
    results, top = run.results, headline(run.results)
    watched = {str(e.get("space")): None for e in run.events if e.get("event") == "eval"}
    selection = {
        space: selection_chart(run.events, space, f"{anchor}-selection{i}")
        for i, space in enumerate(watched)
    }
    return {
        **_described(run, anchor),
        "headline": top,
        "judged": verdict(results),
        "table": _with_roles(results_table(results)),
        "picture": _picture(run.pairs) if run.pairs else None,
        "wipe": [_picture(sheet) for sheet in run.wipe or ()],
        "companions": [(c.title, c.sentence, _picture(c.picture)) for c in run.companions],
        "solvers": len(run.solvers),
        "quality": _markup(quality_chart(results, top.space, f"{anchor}-quality", run.solvers)),
        "loss": _markup(loss_chart(run.events, f"{anchor}-loss")),
        "selection": {space: Markup(svg) for space, svg in selection.items() if svg},
        "settings": flatten(run.about.get("settings") or {}),
        "versions": environment(run.about),
        "commands": commands(run),
        "snippet": loading_code(run),
    }


def compare_section(comparison: Comparison, anchor: str) -> dict[str, Any]:
    """A comparison of samplers: its table, chart and record.

    Args:
        comparison: the comparison.
        anchor: unique in the page; starts with a letter.
    """
    return {
        **_described(comparison, anchor),
        "model": str(comparison.results.get("model", "model")),
        "table": comparison_table(comparison.results).without("steps"),
        "chart": _picture(comparison.chart) if comparison.chart else None,
        "notes": comparison.results.get("notes") or [],
    }


def _described(of: Run | Comparison, anchor: str) -> dict[str, Any]:
    spaces = [{"space": name, **about} for name, about in of.results["spaces"].items()]
    return {
        "anchor": anchor,
        "name": of.folder.resolve().name,
        "protocol": flatten(of.results.get("protocol") or {}),
        "sampled": as_table(of.results["rows"], skip="spaces"),
        "spaces": as_table(spaces, skip="floor"),
    }


def _with_roles(table: Table) -> Table:
    """Roles stand behind the spaces, and metrics above them: neither has a column of its own."""
    role = Markup('{} <span class="role {}">{}</span>')
    groups = {
        _TITLES.get(metric, metric): [
            [role.format(line[0], line[1], line[1]), *line[3:]] for line in lines
        ]
        for metric, lines in table.groups.items()
    }
    return Table([table.columns[0], *table.columns[3:]], groups)


def overview(runs: list[dict[str, Any]]) -> Table:
    """The sections of several runs, a line each."""
    columns = [
        "run", "model", "steps", "space", "base", "finetuned", "gain", "change", "gap closed",
        "fewer steps", "verdict",
    ]  # fmt: skip
    link, tone = Markup('<a href="#{}">{}</a>'), Markup('<span class="tone {}">{}</span>')
    lines = []
    for run in runs:
        top, label = run["headline"], run["judged"].label
        lines.append(
            [
                link.format(run["anchor"], run["name"]), top.model, top.steps, top.space, top.base,
                Strong(top.finetuned), top.gain, top.change, top.share,
                f"{top.ratio} \N{MULTIPLICATION SIGN}" if top.ratio else "\N{EN DASH}",
                tone.format(label.replace(" ", "-"), label),
            ]
        )  # fmt: skip
    return Table(columns, {"": lines})


def _markup(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)


def _picture(path: Path) -> Picture:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(uri, width, height)
