"""``mmd-ddm sample``: images from a model."""

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

__all__ = ["sample"]


def sample(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Run, diffusers folder, hub id, or fashion-mnist."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the images; new, empty, or drawn before.")],
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 64,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps; default: what the model was finetuned for.")
    ] = None,
    sampler: SamplerOption = None,
    spacing: SpacingOption = None,
    times: TimesOption = None,
    eta: EtaOption = None,
    clip: ClipOption = None,
    start_from: Annotated[
        str, typer.Option(help="Images to noise to the first time and begin with (ES-DDPM).")
    ] = "",
    resize: Annotated[bool, typer.Option("--resize", help="Crop and scale those.")] = False,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Show x_0 as predicted along the chain, too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of image 0; image i has SEED + i.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Draw images 00000.png, 00001.png ... and grid.png.

    A finetuned model draws with its own chain, unless another is given. Image i depends on
    SEED + i alone, not on N or the batch size. With --trajectory, trajectory.png shows what the
    first images were predicted to become at every network call.

    Example: mmd-ddm sample run -n 64 --out images

    Example: mmd-ddm sample run -n 8 --trajectory --out images

    Example: mmd-ddm sample base --start-from drafts/ --times 200,150,100,50,0 --out images
    """
    from mmd_ddm.jobs.build import build_device, load_model
    from mmd_ddm.jobs.chain import choose_chain
    from mmd_ddm.jobs.sample import sample as draw
    from mmd_ddm.runs import ranks

    ranks.join()
    loaded = load_model(model, build_device(device))
    chain = choose_chain(
        loaded, steps=steps, sampler=sampler, spacing=spacing, times=parse_times(times), eta=eta,
        clip=clip,
    )  # fmt: skip
    draw(
        loaded, out, chain, n=n, start_from=start_from, resize=resize, trajectory=trajectory,
        seed=seed, batch_size=batch_size, progress=bars,
    )  # fmt: skip
    console.print(f"saved {out}")
