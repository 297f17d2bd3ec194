"""``mmd-ddm verify``: a run recomputed from what it recorded."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import console

__all__ = ["verify"]

_DIFFERS = 1


def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Finished run of finetune, demo or pretrain.")
    ],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Recompute what RUN recorded: hashes of data and weights, samples, scores. Writes nothing.

    Exit code 0 if all that could be recomputed holds, 1 if anything differs. Samples are the same
    to the bit on the same machine with the same versions; scores are compared to 0.1 percent.

    Example: mmd-ddm verify run
    """
    from rich import box
    from rich.table import Table

    from mmd_ddm.jobs.verify import verify as recompute

    checks = recompute(run, device)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("check", "recorded", "found", ""):
        # A check is named by its space or file, of any length: it wraps rather than vanishes.
        table.add_column(title, overflow="fold")
    for check in checks:
        found = check.found[: 16 if check.verdict == "holds" else 60]
        table.add_row(check.name, check.recorded[:16], found, check.verdict)
    console.print(table)
    verdicts = [check.verdict for check in checks]
    console.print(", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)))
    if "differs" in verdicts:
        raise typer.Exit(_DIFFERS)
