"""``mmd-ddm sample``: images from a model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from mmd_ddm.runs.launch import is_first, world

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mmd_ddm.samplers.base import Sampler

__all__ = ["sample"]

_GRID = 64
_STRIP, _STRIP_ROWS = 16, 8


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
    if n < 1 or batch_size < 1:
        raise ValueError(f"-n and --batch-size must be at least 1; got {n} and {batch_size}")
    if trajectory and world() > 1:
        raise ValueError("--trajectory works in one process")
    check_seed(seed)

    import math
    from dataclasses import asdict

    import torch

    from mmd_ddm.evaluation.draw import draw
    from mmd_ddm.jobs.build import build_device, build_sampler, load_model
    from mmd_ddm.report.sheets import grid, save_png
    from mmd_ddm.runs import ranks
    from mmd_ddm.runs.folder import RunLog

    given = {"steps": steps, "sampler": sampler, "spacing": spacing, "eta": eta, "clip": clip}
    ranks.join()
    loaded = load_model(model, build_device(device))
    chain = choose_chain(loaded, times=parse_times(times), **given)
    begin, begun_from = _drafts(start_from, n, seed, loaded.denoiser.shape, resize)
    settings = {"model": model, "n": n, "seed": seed, "chain": asdict(chain)}
    RunLog(out, "sample", {**settings, **begun_from})
    console.print(f"{n} images in {describe_chain(loaded, chain)}")
    walk = build_sampler(chain, loaded.denoiser)
    shown: list[torch.Tensor] = []
    with bars.bar("sampling", n) as bar:
        for start in range(0, n, batch_size * world()):
            count = min(batch_size * world(), n - start)
            first = seed + start
            pixels, _ = draw(walk, count, seed=first, batch_size=batch_size, start=begin)
            for i, image in enumerate(pixels if is_first() else (), start):
                save_png(image.numpy(), out / f"{i:05d}.png")
            shown += pixels[: max(0, _GRID - start)]
            bar(advance=count)
    if is_first():
        save_png(grid(torch.stack(shown).numpy(), math.ceil(len(shown) ** 0.5)), out / "grid.png")
    if trajectory:
        _strip(walk, min(n, _STRIP_ROWS), seed, begin).save(out / "trajectory.png")
    console.print(f"saved {out}")


def _strip(
    walk: "Sampler", n: int, seed: int, begin: "Callable[[range], Tensor] | None"
) -> "Image":
    """A column for every network call, or for some of many, and one for the images themselves."""
    from mmd_ddm.evaluation.draw import draw
    from mmd_ddm.report.sheets import grid, sheet, zoom
    from mmd_ddm.samplers.predictions import predictions

    with predictions(walk) as found:
        pixels, _ = draw(walk, n, seed=seed, start=begin)
    shown = sorted({round(i * (len(found) - 1) / (_STRIP - 1)) for i in range(_STRIP)})
    columns = [(f"t {found[i][0]:g}", grid(found[i][1].numpy(), 1)) for i in shown]
    columns.append(("x_0", grid(pixels.numpy(), 1)))
    heading = f"x_0 as predicted at {len(found)} network calls"
    return sheet([(heading, columns)], zoom(walk.denoiser.shape[-1]))


def _drafts(
    source: str, n: int, seed: int, shape: tuple[int, int, int], resize: bool
) -> tuple["Callable[[range], Tensor] | None", dict[str, Any]]:
    """Where the walks of these seeds begin, and how the run's settings say it."""
    if not source:
        return None, {}
    from mmd_ddm.data.images import load_images
    from mmd_ddm.maths.pixels import from_uint8

    images = load_images(source, shape, resize=resize)
    if len(images) < n:
        raise ValueError(f"{source} holds {len(images)} images; -n {n} takes as many")
    x_0 = from_uint8(images.pixels[:n])
    about = {"start_from": source, "start_sha256": images.sha256}
    return lambda seeds: x_0[seeds.start - seed : seeds.stop - seed], about
