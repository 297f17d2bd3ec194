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
    choose_chain,
    describe_chain,
    parse_times,
)
from mmd_ddm.cli.console import bars, console
from mmd_ddm.config import check_seed
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
    check_seed(seed)

    from mmd_ddm.cli.tables import print_results
    from mmd_ddm.data.images import load_images, say_skipped
    from mmd_ddm.jobs.build import build_device, load_model
    from mmd_ddm.jobs.evaluate import DEFAULT_SPACES, measure, read_roles
    from mmd_ddm.runs import ranks
    from mmd_ddm.runs.folder import write_json

    ranks.join()
    loaded = load_model(model, build_device(device))
    given = {"sampler": sampler, "spacing": spacing, "eta": eta, "clip": clip}
    counts: list[int | None] = [*steps] if steps else [None]
    chains = [choose_chain(loaded, steps=k, times=parse_times(times), **given) for k in counts]
    images = load_images(data, loaded.denoiser.shape, resize=resize)
    say_skipped(bars, images)
    of_run = read_roles(Path(model))
    # Of a finetuned model without its run, nobody knows what it was optimised in.
    otherwise = "held-out" if of_run or loaded.chain is None else "unknown"
    roles = {name: of_run.get(name, otherwise) for name in features or of_run or DEFAULT_SPACES}
    samples = min(len(images), 3000) if n is None else n
    for chain in chains:
        console.print(f"{samples} images in {describe_chain(loaded, chain)}")
    results = measure(loaded, chains, images, roles, metrics or [], bars, n=samples, seed=seed)
    if is_first():
        write_json(out, results)
    print_results(results)
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
