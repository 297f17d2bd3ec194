"""One self-contained page from folders: no network, nothing to build; or Markdown, LaTeX, CSV.

Pictures travel as data URIs and charts as inline SVG, so the page opens from anywhere.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmd_ddm.report.headline import headline
from mmd_ddm.report.markdown import comparison_markdown, run_markdown
from mmd_ddm.report.results import NUMBERS, comparison_table, numbers, results_table
from mmd_ddm.report.runs import Run, run_of
from mmd_ddm.report.tables import Strong, csv_text
from mmd_ddm.runs.files import atomic_write, check_writable

__all__ = ["write_report"]

_NAME = "mmd-ddm report"
_MARK = f"<!-- {_NAME} -->"


def write_report(things: Sequence[Any], out: str | Path) -> None:
    """Write about finished runs and comparisons: what ``out`` ends in says as what.

    Args:
        things: folders of runs, each with ``run.json`` and ``results.json``, and of comparisons of
            samplers, with ``bench.json``; or what `finetune` and `compare` gave back.
        out: ends in ``.html``, ``.md``, ``.tex`` or ``.csv``; replaced if it is a report, refused
            if it is anything else.

    Raises:
        ValueError: nothing given, a folder that lacks its results, another ending, or ``out`` is
            not ours to replace.
    """
    if not things:
        raise ValueError("no run folders given; name at least one")
    out = Path(out)
    _refuse_foreign(out)
    found = [run_of(thing) for thing in things]
    write, _ = _KINDS[out.suffix]
    with atomic_write(out) as file:
        file.write(write(found, out).encode(errors="replace"))


def _refuse_foreign(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file")
    if out.suffix not in _KINDS:
        raise ValueError(f"a report ends in {', '.join(_KINDS)}; got {out}")
    _, mark = _KINDS[out.suffix]
    if out.is_file():
        with out.open("rb") as file:
            head = file.read(1024)
        if mark.encode() not in head:
            raise ValueError(f"{out} is not a report of ours; give another name")
    check_writable(out)


def _page(found: Sequence[Run], out: Path) -> str:
    # Its charts' library takes long to import.
    from mmd_ddm.report.section import overview, section

    sections = [section(run, f"run{i}") for i, run in enumerate(found, start=1)]
    runs = [one for one in sections if "headline" in one]
    environment = Environment(
        loader=PackageLoader("mmd_ddm.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["strong"] = lambda cell: isinstance(cell, Strong)
    return environment.get_template("page.html.j2").render(
        mark=_NAME,
        runs=runs,
        comparisons=[one for one in sections if "headline" not in one],
        overview=overview(runs),
        differing=_differing([run["protocol"] for run in runs]),
    )


def _differing(protocols: Sequence[dict[str, str]]) -> list[str]:
    """Protocol keys in which the runs differ: their numbers do not compare.

    Which checkpoint was kept, and how, is of a run and no matter of how it was judged.
    """
    keys = dict.fromkeys(key for protocol in protocols for key in protocol)
    judged = [key for key in keys if not key.startswith(("kept_iteration", "selection"))]
    return [key for key in judged if len({protocol.get(key) for protocol in protocols}) > 1]


def _markdown(found: Sequence[Run], out: Path) -> str:
    texts = [
        comparison_markdown(run.results) if run.compares else run_markdown(run, out)
        for run in found
    ]
    return "\n\n".join([_MARK, *texts]) + "\n"


def _latex(found: Sequence[Run], out: Path) -> str:
    tables = [
        comparison_table(run.results)
        if run.compares
        else results_table(run.results, f"{run.name}: {headline(run.results).finding}")
        for run in found
    ]
    return "\n".join([f"% {_NAME}; needs the package booktabs", *(t.latex() for t in tables)])


def _csv(found: Sequence[Run], out: Path) -> str:
    return csv_text(NUMBERS, chain.from_iterable(map(numbers, found)))


# Of each kind what writes it, and what it has near its beginning.
_KINDS: dict[str, tuple[Callable[[Sequence[Run], Path], str], str]] = {
    ".html": (_page, f'content="{_NAME}"'),
    ".md": (_markdown, _MARK),
    ".tex": (_latex, f"% {_NAME}"),
    ".csv": (_csv, ",".join(NUMBERS)),
}
