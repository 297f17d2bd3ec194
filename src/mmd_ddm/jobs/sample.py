"""Images from a model, one file each: what ``mmd-ddm sample`` runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from PIL.Image import open as open_image
from torch import Tensor

from mmd_ddm.config import ReadConfig, check_seed
from mmd_ddm.data.images import load_images, say_read
from mmd_ddm.jobs.build import Model, build_sampler, load_model
from mmd_ddm.jobs.chain import ChainLike, choose_chain, describe_chain
from mmd_ddm.jobs.results import Results
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.models.conditions import Condition
from mmd_ddm.report.sheets import grid, save_png, save_sheet, sheet, zoom
from mmd_ddm.runs import ranks
from mmd_ddm.runs.files import check_space, check_writable
from mmd_ddm.runs.folder import RunLog
from mmd_ddm.runs.launch import is_first, world
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.predictions import predictions

__all__ = ["sample"]

_GRID, _SHEET = 64, "grid.png"
_STRIP, _STRIP_ROWS = 16, 8


def sample(
    model: str | Model,
    out: str | Path,
    chain: ChainLike | None = None,
    *,
    n: int = 64,
    start_from: str = "",
    labels: Sequence[int] = (),
    prompts: Sequence[str] = (),
    read: ReadConfig | None = None,
    trajectory: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "auto",
    progress: Progress = silent,
) -> Results:
    """Draw images ``00000.png``, ``00001.png`` ... and ``grid.png``.

    Args:
        model: by name, or what `load` gave.
        out: folder of the images: new, empty, or drawn before; of fewer, more are added.
        chain: by default the model's own, of which ``{"steps": 10}`` names what is to differ.
        n: how many.
        start_from: images to noise to the first time and begin with (ES-DDPM); empty is noise.
        labels: classes to draw, by turns, of a class-conditional model; by default all of them.
        prompts: to draw, by turns, of a text model; by default the empty one.
        read: how those are read.
        trajectory: show x_0 as predicted along the chain of the first images as well.
        seed: image i depends on ``seed + i`` alone, not on ``n`` or ``batch_size``.
        batch_size: images at once.
        device: where to compute, for a model that is named.
        progress: told what is done.

    Returns:
        What was drawn with, and the folder.

    Raises:
        ValueError: an unknown model, an impossible chain, too few images to begin with, a class
            that the model does not have, or prompts for one that takes none.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"-n and --batch-size must be at least 1; got {n} and {batch_size}")
    if trajectory and world() > 1:
        raise ValueError("--trajectory works in one process")
    check_seed(seed)
    out = Path(out)
    check_writable(out)
    model = load_model(model, device)
    chosen = choose_chain(model, chain, truncated=bool(start_from))
    reference = _reference(model, labels, prompts)
    begin, begun_from = _drafts(start_from, n, seed, model.denoiser.shape, read, progress)
    check_space(out, n * math.prod(model.denoiser.shape))
    settings = {"model": model.name, "n": n, "seed": seed, "chain": asdict(chosen)}
    settings |= {"start_from": start_from} if start_from else {}
    settings |= {"labels": list(labels)} if labels else {}
    settings |= {"prompts": list(prompts)} if prompts else {}
    walk = build_sampler(chosen, model.denoiser, truncated=bool(start_from))
    inputs = {"model_sha256": model.denoiser.sha256, **begun_from}
    at_once = batch_size * world()
    with RunLog(out, "sample", settings, inputs) as log:
        progress.say(f"{n} images in {describe_chain(model, chosen)}")
        first = ranks.first_says(_finished(out, log.before.get("n", n), n, at_once))
        shown = list[Tensor]()
        if is_first():
            shown = [_read_png(_image(out, i)) for i in range(min(first, _GRID))]
            (out / _SHEET).unlink(missing_ok=True)  # it is there once all images are
        with progress.bar("sampling", n) as bar:
            bar(advance=first)
            for start in range(first, n, at_once):
                count = min(at_once, n - start)
                pixels, _ = draw(
                    walk, count, seed=seed + start, batch_size=batch_size, start=begin,
                    reference=reference,
                )  # fmt: skip
                for i, image in enumerate(pixels if is_first() else (), start):
                    save_png(image.numpy(), _image(out, i), one_of_many=True)
                shown += pixels[: max(0, _GRID - start)]
                bar(advance=count)
        if is_first():
            columns = math.ceil(len(shown) ** 0.5)
            save_png(grid(torch.stack(shown).numpy(), columns), out / _SHEET)
        if trajectory:
            strip = _strip(walk, min(n, _STRIP_ROWS), seed, begin, reference)
            save_sheet(strip, out / "trajectory.png")
    return Results(settings, out)


def _image(folder: Path, i: int) -> Path:
    return folder / f"{i:05d}.png"


def _finished(folder: Path, before: int, n: int, at_once: int) -> int:
    """How many images need not be drawn where more are wanted than there were.

    They are whole batches, which fewer images at the end of one would not equal to the bit.
    """
    whole = before // at_once * at_once if before < n and (folder / _SHEET).is_file() else 0
    return whole if all(_image(folder, i).is_file() for i in range(whole)) else 0


def _read_png(path: Path) -> Tensor:
    pixels = torch.from_numpy(np.array(open_image(path)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _reference(model: Model, labels: Sequence[int], prompts: Sequence[str]) -> Condition | None:
    """The classes or prompts that were asked for."""
    if prompts and not model.denoiser.of_captions:
        raise ValueError(f"{model.name} takes no prompts; leave out --prompt")
    if prompts:
        return model.denoiser.encode(prompts)
    classes = model.denoiser.classes
    if labels and not classes:
        raise ValueError(f"{model.name} is unconditional: it draws no classes; leave out --label")
    for label in labels:
        if not 0 <= label < len(classes):
            raise ValueError(
                f"{model.name} has no class {label}: its {len(classes)} classes are 0 to "
                f"{len(classes) - 1}"
            )
    return Condition.of_labels(labels) if labels else None


def _strip(
    walk: Sampler,
    n: int,
    seed: int,
    begin: Callable[[Sequence[int]], Tensor] | None,
    reference: Condition | None,
) -> Image:
    """A column for every network call, or for some of many, and one for the images themselves."""
    with predictions(walk) as found:
        pixels, _ = draw(walk, n, seed=seed, start=begin, reference=reference)
    shown = sorted({round(i * (len(found) - 1) / (_STRIP - 1)) for i in range(_STRIP)})
    columns = [(f"t {found[i][0]:g}", grid(found[i][1].numpy(), 1)) for i in shown]
    columns.append(("x_0", grid(pixels.numpy(), 1)))
    heading = f"x_0 as predicted at {len(found)} network calls"
    return sheet([(heading, columns)], zoom(walk.denoiser.shape[-1]))


def _drafts(
    source: str,
    n: int,
    seed: int,
    shape: tuple[int, int, int],
    read: ReadConfig | None,
    progress: Progress,
) -> tuple[Callable[[Sequence[int]], Tensor] | None, dict[str, Any]]:
    """Where the walks of these seeds begin, and the hash of what they begin with."""
    if not source:
        return None, {}
    images = load_images(source, shape, read, progress=progress)
    say_read(progress, images)
    if len(images) < n:
        raise ValueError(f"{source} holds {len(images)} images; -n {n} takes as many")
    x_0 = from_uint8(images[:n])
    about = {"start_from_sha256": images.sha256}
    return lambda seeds: x_0[[one - seed for one in seeds]], about
