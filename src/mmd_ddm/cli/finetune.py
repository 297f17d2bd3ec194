"""``mmd-ddm finetune``: a K-step model from a pretrained one."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.chain import SamplerOption, SpacingOption, TimesOption, parse_times
from mmd_ddm.cli.console import (
    ForceOption,
    TrackerOption,
    bars,
    chosen_trackers,
    console,
    settings,
)
from mmd_ddm.runs.launch import is_first

__all__ = ["finetune"]


def finetune(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Diffusers folder, hub id, run, or fashion-mnist."),
    ],
    data: Annotated[
        str, typer.Option(help="Images: folder, zip, IDX, .npy/.npz, or fashion-mnist.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    steps: Annotated[int | None, typer.Option(help="K, the budget of sampling steps.")] = None,
    heldout: Annotated[
        str | None, typer.Option(help="Images only evaluation sees; default: a fifth of DATA.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    sampler: SamplerOption = None,
    spacing: SpacingOption = None,
    times: TimesOption = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Space to optimise; repeat for several.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="linear, cubic or gaussian.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="bank: the whole set; minibatch: as the paper.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Finetuning iterations.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="N of Eq. 7.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    resize: Annotated[bool | None, typer.Option("--resize", help="Crop and scale images.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: select.every=25")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO", help="Hub repository to send model/ to.")
    ] = None,
    tracker: TrackerOption = None,
    force_new_run: ForceOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings and stop.")
    ] = False,
) -> None:
    """Finetune MODEL for K steps by the unbiased MMD (Eq. 7), and judge the result.

    OUT then holds model/ (a diffusers folder), results.json, pairs.png and report.html.
    To resume, run the same command again.

    Example: mmd-ddm finetune google/ddpm-cifar10-32 --data cifar10.zip --steps 5 --out run
    """
    import json

    from mmd_ddm.config import FinetuneConfig, to_mapping

    given = {
        "model": model,
        "data": data,
        "heldout": heldout,
        "chain.steps": steps,
        "chain.sampler": sampler,
        "chain.spacing": spacing,
        "chain.times": parse_times(times),
        "objective.features": features or None,
        "objective.kernel": kernel,
        "objective.reference": reference,
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
        "resize": resize,
    }
    chosen = settings(FinetuneConfig, config, set_, given)
    if dry_run:
        console.print_json(json.dumps(to_mapping(chosen)))
        return

    from mmd_ddm.models.find import check_upload, upload
    from mmd_ddm.runs import ranks

    trackers = chosen_trackers(tracker)
    if push_to_hub:
        check_upload(push_to_hub)
    ranks.join(chosen.batch_size)

    from mmd_ddm.cli.tables import print_results
    from mmd_ddm.jobs.finetune import run
    from mmd_ddm.runs.folder import free_folder

    if force_new_run:
        out = ranks.first_says(free_folder(out, "finetune", to_mapping(chosen)))
    print_results(run(chosen, out, trackers=trackers, progress=bars).record)
    console.print(f"saved {out}: model/, results.json, pairs.png, report.html")
    if push_to_hub and is_first():
        console.print(f"sent to {upload(out / 'model', push_to_hub)}")
