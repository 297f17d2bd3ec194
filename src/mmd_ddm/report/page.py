"""One self-contained page from run folders: no script, no network, nothing to build.

Pictures travel as data URIs and charts as inline SVG, so the page opens from anywhere.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmd_ddm.report.runs import read_run
from mmd_ddm.report.section import Section, lay_out

__all__ = ["write_report"]

_MARK = "mmd-ddm report"


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Write one HTML page about one or several finished runs.

    Args:
        runs: run folders, each with ``run.json`` and ``results.json``.
        out: the page; replaced if it is a report, refused if it is anything else.

    Raises:
        ValueError: no runs, a folder that lacks its results, or ``out`` is not ours to replace.
    """
    if not runs:
        raise ValueError("no run folders given; name at least one")
    _refuse_foreign(out)
    sections = [lay_out(read_run(folder), f"run{i}") for i, folder in enumerate(runs, start=1)]
    environment = Environment(
        loader=PackageLoader("mmd_ddm.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        mark=_MARK, runs=sections, differing=_differing(sections)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(html, encoding="utf-8")
    temporary.replace(out)


def _refuse_foreign(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of an HTML file")
    if out.is_file():
        with out.open("rb") as file:
            head = file.read(1024)
        if f'content="{_MARK}"'.encode() not in head:
            raise ValueError(f"{out} is not a report of ours; give another name")


def _differing(sections: Sequence[Section]) -> list[str]:
    """Protocol keys in which the runs differ: their numbers do not compare."""
    first = sections[0].protocol
    keys = {key: None for section in sections for key in section.protocol}
    return [k for k in keys if any(s.protocol.get(k) != first.get(k) for s in sections)]
