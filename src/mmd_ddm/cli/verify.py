"""``mmd-ddm verify``: a run recomputed from what it recorded."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device

__all__ = ["verify"]

_FAILED = 1


def verify(
    run: Annotated[Path, typer.Argument(help="Finished run of finetune, demo or pretrain.")],
    device: Device = "auto",
) -> None:
    """Recompute all that RUN recorded: data, weights, every row, floors, verdict. Writes nothing.

    Exit code 0 if all that was recorded holds, 1 if anything differs or could not be recomputed.
    Samples are the same to the bit on the same machine with the same versions; scores are compared
    to 0.1 percent. What the run names is looked for here, then where its command ran.

    Example: mmd-ddm verify run
    """
    from mmd_ddm.jobs.verify import verify as recompute
    from mmd_ddm.report.tables import Table
    from mmd_ddm.report.terminal import shown

    checks = recompute(run, device, progress=bars)
    lines = [
        [c.name, c.recorded[:40], c.found[: 12 if c.verdict == "holds" else 60], c.verdict]
        for c in checks
    ]
    console.print(shown(Table(["check", "recorded", "found", ""], {"": lines}, words=4)))
    verdicts = [check.verdict for check in checks]
    console.print(", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)))
    if {*verdicts} - {"holds"}:
        raise typer.Exit(_FAILED)
