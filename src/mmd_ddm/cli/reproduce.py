"""``mmd-ddm reproduce``: the paper's tables and figures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmd_ddm.cli.chain import parse_steps
from mmd_ddm.cli.console import bars, console

if TYPE_CHECKING:
    from mmd_ddm.paper.cells import Cell, Choice
    from mmd_ddm.paper.presets import Preset

__all__ = ["reproduce"]


def reproduce(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="table-1 ... figure-10, or all.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results; repeat it to go on.")] = Path(
        "reproduction"
    ),
    bundled: Annotated[
        bool, typer.Option("--bundled", help="Small: the bundled model and images, on two cores.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Your model, for every experiment.")] = None,
    data: Annotated[str | None, typer.Option(help="Your images, with --model.")] = None,
    heldout: Annotated[
        str | None, typer.Option(help="Images to compare with; default: a fifth of --data.")
    ] = None,
    inception: Annotated[
        str | None, typer.Option(metavar="SPACE", help="Feature space in the place of Inception.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="SPACE", help="Feature space in the place of CLIP.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Only these numbers of steps: 5,10")] = "",
    seeds: Annotated[int, typer.Option(help="How many of every cell.", min=1)] = 1,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of finetune: iterations=10")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells, the settings, the time; stop.")
    ] = False,
) -> None:
    """Make the tables and figures of the paper, with its published numbers beside ours.

    OUT then holds results.md, a page and a CSV or PNG of each, and cells/: every chain that was
    finetuned and judged, once, whichever tables show it. To resume, run the same command again.

    Example: mmd-ddm reproduce table-1 --model base --data photos/ --dry-run
    """
    from mmd_ddm.paper.cells import Choice
    from mmd_ddm.paper.presets import choose

    if (data or heldout) and not model:
        raise ValueError("--data and --heldout are for a model of yours: give --model as well")
    if model and (bundled or not data):
        raise ValueError("--model needs --data, and not --bundled")
    own = [f"model={json.dumps(model)}", f"data={json.dumps(data)}"] if model else []
    own += [f"heldout={json.dumps(heldout or '')}"] if model else []
    choice = Choice(
        bundled=bundled,
        own=[*own, *(set_ or [])],
        spaces=tuple(
            (word, name) for word, name in (("inception", inception), ("clip", clip)) if name
        ),
        steps=tuple(parse_steps(steps)),
        seeds=seeds,
    )
    presets = choose(names)
    if dry_run:
        _show(presets, choice, out)
        return

    from mmd_ddm.paper.reproduce import reproduce as make

    make(presets, choice, out, bars)
    console.print(f"saved {out / 'results.md'}")


def _show(presets: list["Preset"], choice: "Choice", out: Path) -> None:
    """What would be made: cells with their settings, hidden settings, the time."""
    from mmd_ddm.paper.cells import lay_out, minutes
    from mmd_ddm.paper.presets import load_experiment

    costs: dict[str, float | None] = {}
    examples: dict[str, Cell] = {}
    for preset in presets:
        console.print(f"\n{preset.name}  {preset.title}", style="bold")
        cells = lay_out(preset, choice)
        fresh = {cell.name: key for key, cell in cells.items() if cell.name not in costs}
        for (part, label, k, seed), cell in cells.items():
            examples.setdefault(part, cell)
            if fresh.get(cell.name) != (part, label, k, seed):
                continue
            done = (out / "cells" / f"{cell.name}.json").is_file()
            costs[cell.name] = 0.0 if done else minutes(cell, load_experiment(part))
            place = f"{label}, {k} steps" + f", seed {seed}" * (choice.seeds > 1)
            console.print(f"  {place}: {'finished' if done else cell.describe()}")
        shared = len({cell.name for cell in cells.values()}) - len(fresh)
        if shared:
            console.print(f"  and {shared} cells of the above")
    for part, cell in examples.items():
        experiment = load_experiment(part)
        console.print(f"\nsettings of {part} ({experiment.title})", style="bold")
        console.print(
            f"  compared with the {cell.real} images; judged in {', '.join(cell.spaces)}"
        )
        for name, (released, ours) in experiment.hidden.items():
            console.print(f"  {name}: released code: {released}; here: {cell.setting(ours)}")
    known = [cost for cost in costs.values() if cost is not None]
    time = f", about {sum(known):.0f} minutes on two cores" if len(known) == len(costs) else ""
    console.print(f"\n{len(costs)} cells{time}")
