"""``mmd-ddm reproduce``: the paper's tables and figures."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import DryRun, Text, Words, opt
from mmd_ddm.settings import whole_numbers

__all__ = ["reproduce"]


def reproduce(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="table-1 ... figure-10, or all.")
    ],
    out: Annotated[Path, opt("Folder of the results; repeat it to go on.")] = Path("reproduction"),
    bundled: Annotated[bool, opt("Small: what is bundled, on two cores.", "--bundled")] = False,
    model: Annotated[Text, opt("Your model, for every experiment.")] = None,
    data: Annotated[Text, opt("Your images, with --model.")] = None,
    heldout: Annotated[Text, opt("Images to compare with; default: a fifth of --data.")] = None,
    inception: Annotated[Text, opt("In the place of Inception.", metavar="SPACE")] = None,
    clip: Annotated[Text, opt("In the place of CLIP.", metavar="SPACE")] = None,
    steps: Annotated[str, opt("Only these numbers of steps: 5,10")] = "",
    seeds: Annotated[int, opt("How many of every cell.", min=1)] = 1,
    set_: Annotated[Words, opt("Any setting of finetune: iterations=10", "--set")] = None,
    dry_run: DryRun = False,
) -> None:
    """Make the tables and figures of the paper, with its published numbers beside ours.

    OUT then holds results.md, a page and a CSV or PNG of each, and cells/: every chain that was
    finetuned and judged, once, whichever tables show it. To resume, run the same command again.

    Example: mmd-ddm reproduce table-1 --model base --data photos/ --dry-run
    """
    from mmd_ddm.paper.cells import Choice, describe
    from mmd_ddm.paper.presets import choose

    choice = Choice.of(
        {"model": model, "data": data, "heldout": heldout}, set_ or (), bundled=bundled,
        spaces={"inception": inception, "clip": clip}, steps=whole_numbers(steps), seeds=seeds,
    )  # fmt: skip
    presets = choose(names)
    if dry_run:
        for line in describe(presets, choice, out):
            console.print(line, style=None if line.startswith(" ") else "bold")
        return
    from mmd_ddm.paper.reproduce import reproduce as make

    make(presets, choice, out, bars)
    console.print(f"saved {out / 'results.md'}")
