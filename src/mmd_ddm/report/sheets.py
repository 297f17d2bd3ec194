"""Sheets of images with words: bands one below the other, in each some pictures side by side.

Pictures are uint8 arrays [c, h, w] of one or three channels.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

__all__ = ["grid", "pairs", "save_png", "sheet", "zoom"]

_GAP, _SIZE, _GROUND = 8, 13, "white"
_SMALLEST = 56  # pixels an image is shown at


def grid(
    images: UInt8[np.ndarray, "n c h w"], columns: int, gap: int = 1
) -> UInt8[np.ndarray, "c H W"]:
    """Tile images row by row on a white ground."""
    n, c, h, w = images.shape
    rows = math.ceil(n / columns)
    tiled = np.full((c, rows * (h + gap) + gap, columns * (w + gap) + gap), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        tiled[:, top : top + h, left : left + w] = image
    return tiled


def pairs(
    base: UInt8[np.ndarray, "n c h w"],
    finetuned: UInt8[np.ndarray, "n c h w"],
    real: UInt8[np.ndarray, "m c h w"],
    columns: int = 12,
) -> UInt8[np.ndarray, "c H W"]:
    """Same-noise pairs: base above, finetuned below; real images beside them.

    Args:
        base: one image a pair; n is a multiple of ``columns``.
        finetuned: of the same noise.
        real: fills a block of the same height.
        columns: pairs side by side.
    """
    gap, bands = 4, []
    for i in range(0, len(base), columns):
        bands += [grid(np.concatenate([m[i : i + columns] for m in (base, finetuned)]), columns)]
    left = np.concatenate([_padded(band, gap, 0) for band in bands], 1)
    rows = 2 * len(bands)
    right = grid(real[: rows * (len(real) // rows)], len(real) // rows)
    height = max(left.shape[1], right.shape[1])
    sides = [_padded(part, height - part.shape[1], 2 * gap) for part in (left, right)]
    return np.concatenate(sides, 2)


def _padded(image: np.ndarray, below: int, right: int) -> np.ndarray:
    return np.pad(image, ((0, 0), (0, below), (0, right)), constant_values=255)


def save_png(image: UInt8[np.ndarray, "c h w"], path: Path, scale: int = 1) -> None:
    """Write one image of 1 or 3 channels, each pixel enlarged ``scale`` times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _picture(image, scale).save(path)


def _picture(image: UInt8[np.ndarray, "c h w"], scale: int = 1) -> Image.Image:
    array = image.transpose(1, 2, 0)
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    if scale == 1:
        return picture
    return picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
    )


def zoom(width: int) -> int:
    """How often a pixel is repeated so that an image this wide can be seen."""
    return max(1, round(_SMALLEST / width))


def sheet(
    bands: Sequence[tuple[str, Sequence[tuple[str, UInt8[np.ndarray, "_ _ _"]]]]], scale: int = 1
) -> Image.Image:
    """Lay out pictures under their titles.

    Args:
        bands: of each its heading, and its pictures with their titles; an empty text takes no
            room.
        scale: how often each pixel of a picture is repeated.
    """
    return _below(
        [
            _below(
                [
                    *_words(heading),
                    _beside([_below([*_words(t), _picture(p, scale)]) for t, p in pictures]),
                ]
            )
            for heading, pictures in bands
        ],
        gap=2 * _GAP,
    )


def _words(text: str) -> list[Image.Image]:
    if not text:
        return []
    font = ImageFont.load_default(_SIZE)
    line = Image.new("RGB", (int(font.getlength(text)) + 2, _SIZE + 4), _GROUND)
    ImageDraw.Draw(line).text((0, 0), text, "black", font)
    return [line]


def _below(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    height = sum(p.height for p in pictures) + gap * (len(pictures) - 1)
    ground = Image.new("RGB", (max(p.width for p in pictures), height), _GROUND)
    top = 0
    for picture in pictures:
        ground.paste(picture, (0, top))
        top += picture.height + gap
    return ground


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """The same turned by a right angle, bottoms in line."""
    width = sum(p.width for p in pictures) + _GAP * (len(pictures) - 1)
    ground = Image.new("RGB", (width, max(p.height for p in pictures)), _GROUND)
    left = 0
    for picture in pictures:
        ground.paste(picture, (left, ground.height - picture.height))
        left += picture.width + _GAP
    return ground
