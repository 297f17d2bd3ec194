"""``mmd-ddm report``: finished runs as a page, as Markdown, as LaTeX or as CSV."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import console
from mmd_ddm.cli.options import opt

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs and of bench.")
    ],
    out: Annotated[Path, opt("FILE.html, .md, .tex, .csv; an earlier report there is replaced.")],
) -> None:
    """Write one self-contained HTML page: tables, figures, verdict and settings of every run.

    OUT in .md gives the same in brief as Markdown, for a README; in .tex the tables, for a paper;
    in .csv every number on a line.
    A comparison of samplers in RUN/bench (mmd-ddm bench ... --out RUN/bench), and the pictures of
    RUN/neighbors and RUN/interpolation, are shown as well.

    Example: mmd-ddm report run-a run-b --out report.html
    """
    from mmd_ddm.report import write_report

    write_report(runs, out)
    console.print(f"saved {out}")
