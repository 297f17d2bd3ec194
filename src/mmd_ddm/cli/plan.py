"""``mmd-ddm plan``: what an iteration of finetuning would take, and how it would be run."""

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import settings_options
from mmd_ddm.config import FinetuneConfig

__all__ = ["plan"]


@settings_options(
    FinetuneConfig,
    "model budgets recipe batch_size chain.sampler objective.features decoder device",
)
def plan(config: FinetuneConfig) -> None:
    """Measure one small step, and say how an iteration would best fit this device.

    Finetuning does so by itself. Pipelines of latents or text are counted from configs, for GPUs.

    Example: mmd-ddm plan google/ddpm-cifar10-32 --steps 10 --batch-size 256
    """
    from mmd_ddm.jobs.plan import plan as measure
    from mmd_ddm.jobs.recipe import words
    from mmd_ddm.report.tables import Table
    from mmd_ddm.report.terminal import shown

    planned = measure(config, bars)
    console.print(words(config))
    console.print(
        shown(Table([*planned.columns], {"": planned.lines()}, words=planned.words), gap=0)
    )
    console.print(f"{planned}")
