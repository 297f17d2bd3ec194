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
    from mmd_ddm.features.registry import make_features
    from mmd_ddm.jobs.build import build_device, build_sampler, load_model
    from mmd_ddm.jobs.fit_memory import describe_choice, table_of_choices
    from mmd_ddm.models.lora import adapt
    from mmd_ddm.report.tables import Table
    from mmd_ddm.training.memory_plan import free_memory, measure

    where = build_device(chosen.device)
    denoiser = load_model(chosen.model, where, chosen.precision).denoiser
    adapt(denoiser.network, chosen.trained, chosen.lora_rank)
    names = chosen.objective.features
    phis = [make_features(name, denoiser.shape[0]).to(where) for name in names]
    costs = measure(build_sampler(chosen.chain, denoiser), phis)
    budget = free_memory(where)
    columns = ["micro-batch", "calls kept", "memory", "an iteration", ""]
    lines = table_of_choices(chosen, costs, budget)
    print_table(Table(columns, {"": lines}, words=0))
    console.print(describe_choice(chosen, costs, budget))
