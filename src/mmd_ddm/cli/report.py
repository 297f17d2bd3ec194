"""``mmd-ddm report``: one page about finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import console

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders with results.json.")
    ],
    out: Annotated[Path, typer.Option(help="The page; an earlier report there is replaced.")],
) -> None:
    """Write one self-contained HTML page: tables, figures, verdict and settings of every run.

    Example: mmd-ddm report run-a run-b --out report.html
    """
    from mmd_ddm.report import write_report

    write_report(runs, out)
    console.print(f"saved {out}")
