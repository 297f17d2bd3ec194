"""``mmd-ddm genie-head``: the derivative that the sampler of that name needs, distilled once."""

from typing import Annotated

import typer

from mmd_ddm.cli.console import bars, console, settings

__all__ = ["genie_head"]


def genie_head(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Diffusers folder, or a run that is finished.")
    ],
    data: Annotated[
        str, typer.Option(help="Images the model draws: folder, zip, IDX, .npy/.npz ...")
    ],
    iterations: Annotated[int | None, typer.Option(help="Training iterations.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an iteration.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of images and the noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Crop and scale images.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: ema_decay=0.999")
    ] = None,
) -> None:
    """Distil the exact derivative of MODEL into a small head, for the sampler genie-head.

    The run and the head are kept in MODEL's folder, in genie-head/, and are used from there. The
    network stays as it is. To resume, run the same command again.

    Example: mmd-ddm genie-head base --data photos/
    """
    from mmd_ddm.config import HeadConfig

    given = {
        "data": data,
        "resize": resize,
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
    }
    config = settings(HeadConfig, None, set_, given)

    from mmd_ddm.jobs.genie_head import distil_head

    console.print(f"saved {distil_head(model, config, progress=bars)}")
