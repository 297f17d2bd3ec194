"""``mmd-ddm runs``: what lies under a folder."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import console

__all__ = ["runs"]


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Looked through, however deep.")
    ] = Path(),
) -> None:
    """List the runs under FOLDER: steps, verdict, KID of base and finetuned, size on disk.

    KID is in thousandths, in the space that carries the run's headline.

    Example: mmd-ddm runs .
    """
    from mmd_ddm.report.listing import list_runs
    from mmd_ddm.report.terminal import shown

    console.print(shown(list_runs(folder)))
