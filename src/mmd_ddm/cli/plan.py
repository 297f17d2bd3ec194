"""``mmd-ddm plan``: what an iteration of finetuning would take, and how it would be run."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.chain import SamplerOption
from mmd_ddm.cli.console import console, settings

__all__ = ["plan"]


def plan(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Diffusers folder, hub id, run, or fashion-mnist."),
    ],
    steps: Annotated[int | None, typer.Option(help="K, the budget of sampling steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="N of Eq. 7.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    sampler: SamplerOption = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Space to optimise; repeat for several.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of finetune: micro_batch=16")
    ] = None,
) -> None:
    """Measure one small step, and say how an iteration would best fit this device.

    Finetuning does so by itself, and by this choice. The time is that of the device as it is now.

    Example: mmd-ddm plan google/ddpm-cifar10-32 --steps 10 --batch-size 256
    """
    from mmd_ddm.config import FinetuneConfig

    given = {
        "model": model,
        "chain.steps": steps,
        "chain.sampler": sampler,
        "objective.features": features or None,
        "batch_size": batch_size,
        "device": device,
    }
    chosen = settings(FinetuneConfig, config, set_, given)

    from mmd_ddm.cli.tables import print_table
    from mmd_ddm.jobs.plan import plan as measure
    from mmd_ddm.report.tables import Table

    planned = measure(chosen)
    columns = ["micro-batch", "calls kept", "memory", "an iteration", ""]
    print_table(Table(columns, {"": planned.lines()}, words=0))
    console.print(f"chosen: {planned}; {planned.budget / 2**30:.3g} GiB may be taken")
