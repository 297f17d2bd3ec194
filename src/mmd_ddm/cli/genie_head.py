"""``mmd-ddm genie-head``: the derivative that the sampler of that name needs, distilled once."""

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import READING, Model, settings_options
from mmd_ddm.config import HeadConfig

__all__ = ["genie_head"]


@settings_options(HeadConfig, f"data iterations batch_size lr seed device {READING}", file=False)
def genie_head(config: HeadConfig, model: Model) -> None:
    """Distil the exact derivative of MODEL into a small head, for the sampler genie-head.

    The run and the head are kept in MODEL's folder, in genie-head/, and are used from there. The
    network stays as it is. To resume, run the same command again.

    Example: mmd-ddm genie-head base --data photos/
    """
    from mmd_ddm.jobs.genie_head import distil_head

    console.print(f"saved {distil_head(model, config, progress=bars).folder}")
