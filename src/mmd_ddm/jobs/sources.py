"""What is judged: models, and sets of images that came from anything."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.choose import find_place
from mmd_ddm.data.images import BUNDLED, ImageSet, load_images
from mmd_ddm.data.public_sets import parse_request
from mmd_ddm.jobs.build import Model, load_model
from mmd_ddm.models.find import is_model

__all__ = ["load_sources", "shape_of"]

_Shape = tuple[int, int, int]


def load_sources(
    sources: Sequence[str | Path | Model | ImageSet | Any], device: str, read: ReadConfig
) -> list[Model | ImageSet]:
    """Models and sets of images of one shape, in their order.

    Args:
        sources: names, or what `load` or `images` gave. What no model is named by are images.
        device: where models compute.
        read: how images are read.

    Raises:
        ValueError: neither model nor images, or shapes that differ.
    """
    if not sources:
        raise ValueError("nothing to evaluate: give a model, or images")
    named = [str(source) if isinstance(source, Path) else source for source in sources]
    models = [source if _is_images(source) else _load_model(source, device) for source in named]
    shape = next((one.denoiser.shape for one in models if isinstance(one, Model)), None)
    found: list[Model | ImageSet] = []
    for source in models:
        one = _load_images(source, shape, read) if isinstance(source, str) else source
        shape = shape or shape_of(one)
        if shape_of(one) != shape:
            name = one.name if isinstance(one, Model) else one.source
            raise ValueError(
                f"{name} has images of {_words(shape_of(one))}, what is judged beside it "
                f"{_words(shape)}: evaluate them one by one"
            )
        found.append(one)
    return found


def _is_images(source: Any) -> bool:
    if not isinstance(source, str):
        return isinstance(source, ImageSet)
    if not source or is_model(source):
        return False
    return source in BUNDLED or parse_request(source) is not None or find_place(source) is not None


def _load_model(source: Any, device: str) -> Model:
    try:
        return load_model(source, device)
    except ValueError as error:
        if not isinstance(source, str) or is_model(source):
            raise
        raise ValueError(f"{error}; nor are there images of that name") from error


def _load_images(name: str, shape: _Shape | None, read: ReadConfig) -> ImageSet:
    try:
        images = load_images(name, shape, read if shape else replace(read, resize=False))
    except ValueError as error:
        raise ValueError(f"{name} is no model, nor images to judge: {error}") from error
    grey = all(bool((block == block[:, :1]).all()) for block in images.blocks())
    # Without a model, grey pictures are read in colour as well.
    return replace(images, store=images.pixels[:, :1]) if grey and shape is None else images


def shape_of(source: Model | ImageSet) -> _Shape:
    """(c, h, w) of its images."""
    if isinstance(source, Model):
        return source.denoiser.shape
    return source.shape


def _words(shape: _Shape) -> str:
    return "x".join(map(str, shape))
