"""``mmd-ddm pretrain``: a base model from images."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import (
    ForceOption,
    TrackerOption,
    bars,
    chosen_trackers,
    console,
    settings,
)

__all__ = ["pretrain"]


def pretrain(
    data: Annotated[
        str, typer.Option(help="Images: folder, zip, IDX, .npy/.npz, or fashion-mnist.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the model is in its model/.")],
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Training iterations.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an iteration.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of Adam.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after so long; run again to go on.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: network.channels=32,64,96")
    ] = None,
    tracker: TrackerOption = None,
    force_new_run: ForceOption = False,
) -> None:
    """Train a denoiser from scratch with the denoising loss (Eq. 5).

    To resume, run the same command again.

    Example: mmd-ddm pretrain --data photos/ --out base --iterations 20000
    """
    from mmd_ddm.config import PretrainConfig, to_mapping
    from mmd_ddm.runs.folder import check_folder, free_folder

    given = {
        "data": data,
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
    }
    chosen = settings(PretrainConfig, config, set_, given)
    if force_new_run:
        out = free_folder(out, "pretrain", to_mapping(chosen))
    check_folder(out, "pretrain", to_mapping(chosen))

    from mmd_ddm.jobs.pretrain import pretrain as train

    trackers = chosen_trackers(tracker)
    if train(chosen, out, minutes=minutes, trackers=trackers, progress=bars):
        console.print(f"saved {out / 'model'}")
    else:
        console.print(f"stopped after {minutes:g} minutes; run the same command again to go on")
