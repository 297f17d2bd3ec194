"""One run as the page tells it: the headline, the numbers, the pictures, the record."""

import base64
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from mmd_ddm.evaluation.scores import table_lines
from mmd_ddm.evaluation.verdict import Verdict, verdict
from mmd_ddm.report.figures import loss_chart, quality_chart, selection_chart
from mmd_ddm.report.headline import Headline, headline
from mmd_ddm.report.record import as_table, commands, environment, flatten, loading_code
from mmd_ddm.report.runs import Run

__all__ = ["Section", "lay_out"]

_TITLES = {"KID x1000": "KID \N{MULTIPLICATION SIGN} 1000 ± standard error", "FD": "FD"}


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Section:
    """Everything the template shows of one run.

    Attributes:
        anchor: id of the section.
        name: the run folder's name.
        headline: the finding, and the numbers that carry it.
        judged: the verdict.
        header: of the table; role and metric stand elsewhere than in columns of their own.
        groups: lines of the table by the title of their metric; a space is followed by its role.
        sampled: header and lines that say how each row was drawn.
        spaces: header and lines that say what each feature space is.
        by_space: a line of the verdict for each space: its name, role and finding.
        picture: the same-noise picture, if there is one.
        wipe: the same images before and after, to be laid over each other.
        companions: title, finding and picture of what other verbs made of the run.
        solvers: how many rows of other samplers stand behind the chart of quality.
        quality: chart of KID against network evaluations, by space: the headline's.
        loss: chart of the training loss.
        selection: charts of KID during training, by space.
        protocol: every key of the protocol block.
        settings: every setting, by its dotted name.
        record: versions, revision.
        commands: what made the run, and what uses it.
        snippet: Python that loads the model, if one was exported.
    """

    anchor: str
    name: str
    headline: Headline
    judged: Verdict
    header: list[str]
    groups: dict[str, list[list[str]]]
    sampled: list[list[str]]
    spaces: list[list[str]]
    by_space: list[tuple[str, str, str]]
    picture: Picture | None
    wipe: list[Picture]
    companions: list[tuple[str, str, Picture]]
    solvers: int
    quality: Markup | None
    loss: Markup | None
    selection: dict[str, Markup]
    protocol: dict[str, str]
    settings: dict[str, str]
    record: dict[str, str]
    commands: str
    snippet: str | None


def lay_out(run: Run, anchor: str) -> Section:
    """Turn a run into what the template shows.

    Args:
        run: the run.
        anchor: unique in the page; starts with a letter.
    """
    results, top, judged = run.results, headline(run.results), verdict(run.results)
    header, *lines = table_lines(results)
    watched = {str(e.get("space")): None for e in run.events if e.get("event") == "eval"}
    selection = {
        space: selection_chart(run.events, space, f"{anchor}-selection{i}")
        for i, space in enumerate(watched)
    }
    spaces = [{"space": name, **about} for name, about in results["spaces"].items()]
    return Section(
        anchor=anchor,
        name=run.folder.resolve().name,
        headline=top,
        judged=judged,
        header=[header[0], *header[3:]],
        groups=_group(lines),
        sampled=as_table(results["rows"], skip="spaces"),
        spaces=as_table(spaces, skip="floor"),
        by_space=[(name, f.role, f.text) for name, f in judged.spaces.items()],
        picture=_picture(run.pairs) if run.pairs else None,
        wipe=[_picture(sheet) for sheet in run.wipe or ()],
        companions=[(c.title, c.sentence, _picture(c.picture)) for c in run.companions],
        solvers=len(run.solvers),
        quality=_markup(quality_chart(results, top.space, f"{anchor}-quality", run.solvers)),
        loss=_markup(loss_chart(run.events, f"{anchor}-loss")),
        selection={space: Markup(svg) for space, svg in selection.items() if svg},
        protocol=flatten(results.get("protocol") or {}),
        settings=flatten(run.about.get("settings") or {}),
        record=environment(run.about),
        commands=commands(run),
        snippet=loading_code(run),
    )


def _group(lines: list[list[str]]) -> dict[str, list[list[str]]]:
    """Lines by the title of their metric, without the metric's own column."""
    groups: dict[str, list[list[str]]] = {}
    for space, role, metric, *scores in lines:
        groups.setdefault(_TITLES[metric], []).append([space, role, *scores])
    return groups


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
