"""One self-contained page from run folders: no network, nothing to build; or Markdown, or CSV.

Pictures travel as data URIs and charts as inline SVG, so the page opens from anywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmd_ddm.report.markdown import MARK, markdown
from mmd_ddm.report.runs import Run, read_run
from mmd_ddm.report.spreadsheet import HEADER, csv_text
from mmd_ddm.runs.folder import atomic_write

if TYPE_CHECKING:
    from mmd_ddm.report.section import Section

__all__ = ["write_report"]

_NAME = "mmd-ddm report"
# What each kind of report has near its beginning.
_MARKS = {".html": f'content="{_NAME}"', ".md": MARK, ".csv": HEADER}


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Write about one or several finished runs: a page, Markdown or CSV, by the name's ending.

    Args:
        runs: run folders, each with ``run.json`` and ``results.json``.
        out: ends in ``.html``, ``.md`` or ``.csv``; replaced if it is a report, refused if it is
            anything else.

    Raises:
        ValueError: no runs, a folder that lacks its results, another ending, or ``out`` is not
            ours to replace.
    """
    if not runs:
        raise ValueError("no run folders given; name at least one")
    _refuse_foreign(out)
    found = [read_run(folder) for folder in runs]
    if out.suffix == ".md":
        text = markdown(found, out)
    elif out.suffix == ".csv":
        text = csv_text(found)
    else:
        text = _page(found)
    with atomic_write(out) as file:
        file.write(text.encode())


def _page(runs: Sequence[Run]) -> str:
    from mmd_ddm.report.section import lay_out

    sections = [lay_out(run, f"run{i}") for i, run in enumerate(runs, start=1)]
    environment = Environment(
        loader=PackageLoader("mmd_ddm.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        mark=_NAME, runs=sections, differing=_differing(sections)
    )


def _refuse_foreign(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file")
    if out.suffix not in _MARKS:
        raise ValueError(f"a report ends in {', '.join(_MARKS)}; got {out}")
    if out.is_file():
        with out.open("rb") as file:
            head = file.read(1024)
        if _MARKS[out.suffix].encode() not in head:
            raise ValueError(f"{out} is not a report of ours; give another name")


def _differing(sections: "Sequence[Section]") -> list[str]:
    """Protocol keys in which the runs differ: their numbers do not compare.

    Which checkpoint was kept, and how, is of a run and no matter of how it was judged.
    """
    first = sections[0].protocol
    keys = dict.fromkeys(key for section in sections for key in section.protocol)
    judged = [key for key in keys if not key.startswith(("kept_iteration", "selection"))]
    return [k for k in judged if any(s.protocol.get(k) != first.get(k) for s in sections)]
