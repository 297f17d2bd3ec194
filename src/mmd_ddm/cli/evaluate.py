"""``mmd-ddm evaluate``: a model against real images, in feature spaces."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, OwnData, Seed, Words, chain_options, opt, reading_options
from mmd_ddm.config import ReadConfig
from mmd_ddm.runs.launch import is_first

__all__ = ["evaluate"]


@reading_options
@chain_options("sampler spacing times eta order clip guidance")
def evaluate(
    given: dict[str, Any],
    read: ReadConfig,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Run, folder, hub id, fashion-mnist; or images."),
    ],
    out: Annotated[Path, opt("The JSON file of results.")],
    data: OwnData = None,
    n: Annotated[int | None, opt("Images of each; default: as the real, to 3000", "-n")] = None,
    features: Annotated[Words, opt("Space to measure in; repeatable; default: the run's.")] = None,
    metrics: Annotated[Words, opt("kid, precision-recall ...; repeatable; default: all")] = None,
    steps: Annotated[list[int] | None, opt("Sampling steps; repeat to compare several.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Measure what models draw, or images from anything, against real ones, with their floor.

    Metrics are kid, fd, swd, precision-recall, density-coverage, is (in inception and
    efficientnet-lite0) and cmmd (in clip). FD in inception is FID, in inception-spatial sFID, in
    clip FID_CLIP, in dinov2 FD-DINOv2. Drawn images, features and scores are kept: a repeated
    command computes nothing again.

    A finetuned model draws with its own chain, unless another is given; its run says which spaces
    it was optimised in, and which images it held out: no others that it saw are compared with.
    Compare only numbers of the same protocol.

    Example: mmd-ddm evaluate run --out results.json

    Example: mmd-ddm evaluate generated/ other.zip base --data photos/ --out all.json
    """
    from mmd_ddm.runs.folder import refuse_foreign_results

    refuse_foreign_results(out)
    from mmd_ddm.jobs.evaluate import evaluate as judge
    from mmd_ddm.report.terminal import shown_results
    from mmd_ddm.runs import ranks
    from mmd_ddm.runs.files import write_json

    ranks.join()
    chains = [{**given, "steps": k} for k in steps or (None,)]
    found = judge(
        sources, data, chains, features=features or (), metrics=metrics or (), n=n, seed=seed,
        read=read, device=device, progress=bars,
    )  # fmt: skip
    if is_first():
        write_json(out, found.record)
    console.print(shown_results(found.record))
    console.print(f"saved {out}")
