"""``mmd-ddm pretrain``: a base model from images."""

from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, chosen_trackers, console
from mmd_ddm.cli.options import READING, ForceNewRun, Tracker, opt, settings_options
from mmd_ddm.config import PretrainConfig
from mmd_ddm.settings import to_mapping

__all__ = ["pretrain"]


@settings_options(
    PretrainConfig, f"data labels objective iterations batch_size lr seed device {READING}"
)
def pretrain(
    config: PretrainConfig,
    out: Annotated[Path, opt("Folder of the run; the model is in its model/.")],
    minutes: Annotated[float, opt("Stop after so long; run again to go on.")] = 0,
    tracker: Tracker = None,
    force_new_run: ForceNewRun = False,
) -> None:
    """Train a denoiser with the denoising loss (Eq. 5); the same command resumes.

    Example: mmd-ddm pretrain --data photos/ --out base --iterations 20000
    """
    from mmd_ddm.runs.folder import check_folder, free_folder

    if force_new_run:
        out = free_folder(out, "pretrain", to_mapping(config))
    check_folder(out, "pretrain", to_mapping(config))  # before torch is imported
    from mmd_ddm.jobs.pretrain import pretrain as train

    done = train(config, out, minutes=minutes, trackers=chosen_trackers(tracker), progress=bars)
    left = f"stopped after {minutes:g} minutes; run the same command again to go on"
    console.print(f"saved {out / 'model'}" if done.record["finished"] else left)
