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
from mmd_ddm.report.results import classes_table, comparison_table, results_table
from mmd_ddm.report.runs import Run, companions
from mmd_ddm.report.tables import Strong, Table

__all__ = ["overview", "section"]

_TITLES = {"KID x1000": "KID \N{MULTIPLICATION SIGN} 1000 ± standard error"}


class Picture(NamedTuple):
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def section(run: Run, anchor: str) -> dict[str, Any]:
    """What is shown of a run, and more of one that finetuned than of one that compared samplers.

    Args:
        run: the run.
        anchor: unique in the page; starts with a letter.
    """
    spaces = [{"space": name, **about} for name, about in run.results["spaces"].items()]
    return {
        "anchor": anchor,
        "name": run.name,
        "protocol": flatten(run.results.get("protocol") or {}),
        "versions": environment(run.about),
        "spaces": as_table(spaces, "floor"),
        **(_comparison(run) if run.compares else _finetuning(run, anchor)),
    }


def _comparison(run: Run) -> dict[str, Any]:
    return {
        "model": run.results["model"],
        "table": comparison_table(run.results).without("steps"),
        "chart": _picture(run.picture("bench.png")),
        "notes": run.results["notes"],
    }


def _finetuning(run: Run, anchor: str) -> dict[str, Any]:
    results, events, top = run.results, run.events, headline(run.results)
    watched = dict.fromkeys(str(e.get("space")) for e in events if e.get("event") == "eval")
    selection = {
        space: selection_chart(events, space, f"{anchor}-selection{i}")
        for i, space in enumerate(watched)
    }
    wipe = [_picture(run.picture(name)) for name in ("before.png", "after.png")]
    return {
        "headline": top,
        "judged": verdict(results),
        "table": _with_roles(results_table(results)),
        "classes": classes_table(results),
        "sampled": as_table(results["rows"], "spaces", "classes"),
        "picture": _picture(run.picture("pairs.png")),
        "wipe": wipe if all(wipe) else None,
        "companions": [(c.title, c.sentence, _picture(c.picture)) for c in companions(run.folder)],
        "solvers": len(run.solvers),
        "quality": quality_chart(results, top.space, f"{anchor}-quality", run.solvers),
        "loss": loss_chart(events, f"{anchor}-loss"),
        "selection": {space: svg for space, svg in selection.items() if svg},
        "settings": flatten(run.about.get("settings") or {}),
        "commands": commands(run),
        "snippet": loading_code(run),
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
    return Table([table.columns[0], *table.columns[3:]], groups, note=table.note)


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


def _picture(path: Path | None) -> Picture | None:
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            width, height = image.size
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(uri, width, height)
