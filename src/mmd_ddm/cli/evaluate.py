"""``mmd-ddm evaluate``: a model against real images, in feature spaces."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.chain import (
    ClipOption,
    EtaOption,
    SamplerOption,
    SpacingOption,
    TimesOption,
    parse_times,
)
from mmd_ddm.cli.console import bars, console
from mmd_ddm.runs.launch import is_first

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Run, diffusers folder, hub id, or fashion-mnist."),
    ],
    data: Annotated[
        str,
        typer.Option(help="Real images: folder, zip, IDX, .npy/.npz, or fashion-mnist-heldout."),
    ],
    out: Annotated[Path, typer.Option(help="The JSON file of results.")],
    n: Annotated[
        int | None, typer.Option("-n", help="Images to draw; default: as many as real, to 3000.")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(help="Space to measure in; repeat for several. Default: those of the run."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="kid, fd, precision-recall ...; repeat for several. Default: all."),
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option(help="Sampling steps; repeat to compare several.")
    ] = None,
    sampler: SamplerOption = None,
    spacing: SpacingOption = None,
    times: TimesOption = None,
    eta: EtaOption = None,
    clip: ClipOption = None,
    resize: Annotated[bool, typer.Option("--resize", help="Crop and scale images.")] = False,
    seed: Annotated[int, typer.Option(help="Of image 0; image i has SEED + i.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Measure what a model draws against real images, with the floor of two sets of real ones.

    Metrics are kid, fd, precision-recall, density-coverage, is (in inception and
    efficientnet-lite0) and cmmd (in clip). FD in inception is FID, in inception-spatial sFID, in
    clip FID_CLIP, in dinov2 FD-DINOv2. Drawn images, features and scores are kept: a repeated
    command computes nothing again.

    A finetuned model draws with its own chain, unless another is given; its run says which spaces
    it was optimised in. Compare only numbers of the same protocol.

    Example: mmd-ddm evaluate run --data photos/ --out results.json

    Example: mmd-ddm evaluate base --data photos/ --steps 5 --steps 20 --out base.json
    """
    _refuse_foreign(out)

    from mmd_ddm.cli.tables import print_results
    from mmd_ddm.jobs.build import build_device, load_model
    from mmd_ddm.jobs.chain import choose_chain
    from mmd_ddm.jobs.evaluate import evaluate as judge
    from mmd_ddm.runs import ranks
    from mmd_ddm.runs.folder import write_json

    ranks.join()
    loaded = load_model(model, build_device(device))
    chains = [
        choose_chain(
            loaded,
            steps=k,
            sampler=sampler,
            spacing=spacing,
            times=parse_times(times),
            eta=eta,
            clip=clip,
        )
        for k in steps or (None,)
    ]
    found = judge(
        loaded, data, chains, features=features or (), metrics=metrics or (), n=n, seed=seed,
        resize=resize, progress=bars,
    )  # fmt: skip
    if is_first():
        write_json(out, found.record)
    print_results(found.record)
    console.print(f"saved {out}")


def _refuse_foreign(out: Path) -> None:
    """Only what this verb wrote may be replaced: the results of a finetuning hold its verdict."""
    from mmd_ddm.runs.folder import read_json

    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a JSON file")
    if not out.exists():
        return
    try:
        content = read_json(out)
    except ValueError:
        content = {}
    if not content.keys() >= {"protocol", "spaces", "rows"}:
        raise ValueError(f"{out} is not a file of results; give another name")
    if "speedup" in content:
        raise ValueError(f"{out} holds the results of a finetuning; give another name")
