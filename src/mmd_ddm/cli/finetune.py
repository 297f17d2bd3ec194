"""``mmd-ddm finetune``: a K-step model from a pretrained one."""

import json
from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, chosen_trackers, console
from mmd_ddm.cli.options import READING, DryRun, ForceNewRun, Text, Tracker, opt, settings_options
from mmd_ddm.config import FinetuneConfig
from mmd_ddm.runs.launch import is_first
from mmd_ddm.settings import to_mapping

__all__ = ["finetune"]


@settings_options(
    FinetuneConfig,
    "model data heldout budgets recipe chain.sampler chain.spacing chain.times objective.features "
    "objective.kernel objective.reference chain.guidance condition.bake_guidance condition.match "
    f"method iterations batch_size lr seed device keep_checkpoint decoder {READING}",
)
def finetune(
    config: FinetuneConfig,
    out: Annotated[Path, opt("Folder of the run.")],
    push_to_hub: Annotated[Text, opt("Hub repository to send model/ to.", metavar="REPO")] = None,
    tracker: Tracker = None,
    force_new_run: ForceNewRun = False,
    dry_run: DryRun = False,
) -> None:
    """Finetune MODEL for K steps by the unbiased MMD (Eq. 7), and judge the result.

    OUT then holds model/, results.json, pairs.png and report.html. To resume, run it again.

    Example: mmd-ddm finetune google/ddpm-cifar10-32 --data c10.zip --steps 5 --recipe auto --out r
    """
    if dry_run:
        console.print_json(json.dumps(to_mapping(config)))
        return

    from mmd_ddm.models.find import check_upload, upload
    from mmd_ddm.runs import ranks

    trackers = chosen_trackers(tracker)
    if push_to_hub:
        check_upload(push_to_hub)
    ranks.join(config.batch_size)

    from mmd_ddm.jobs.finetune import run
    from mmd_ddm.report.terminal import shown_results
    from mmd_ddm.runs.folder import free_folder

    if force_new_run:
        out = ranks.first_says(free_folder(out, "finetune", to_mapping(config)))
    console.print(shown_results(run(config, out, trackers=trackers, progress=bars).record))
    console.print(f"saved {out}: model/, results.json, pairs.png, report.html")
    if push_to_hub and is_first():
        console.print(f"sent to {upload(out / 'model', push_to_hub)}")
