"""Sheets of images with words: bands one below the other, in each some pictures side by side.

Pictures are uint8 arrays [c, h, w] of one or three channels.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mmd_ddm.runs.files import atomic_write

__all__ = ["grid", "pairs", "save_png", "save_sheet", "sheet", "zoom"]

_GAP, _SIZE = 8, 13
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
        base: one image a pair.
        finetuned: of the same noise.
        real: fills a block of the same height, where there are enough.
        columns: pairs side by side; a last band of fewer ends in white.
    """
    gap, bands, columns = 4, [], min(columns, len(base))
    missing = ((0, -len(base) % columns), (0, 0), (0, 0), (0, 0))
    base, finetuned = _padded(base, *missing), _padded(finetuned, *missing)
    for i in range(0, len(base), columns):
        bands += [grid(np.concatenate([m[i : i + columns] for m in (base, finetuned)]), columns)]
    left = np.concatenate([_padded(band, (0, 0), (0, gap), (0, 0)) for band in bands], 1)
    rows = 2 * len(bands)
    across = max(len(real) // rows, 1)
    right = grid(real[: rows * across], across)
    height = max(left.shape[1], right.shape[1])
    sides = [
        _padded(part, (0, 0), (0, height - part.shape[1]), (0, 2 * gap)) for part in (left, right)
    ]
    return np.concatenate(sides, 2)


def _padded(array: np.ndarray, *widths: tuple[int, int]) -> np.ndarray:
    return np.pad(array, widths, constant_values=255)


def save_png(
    image: UInt8[np.ndarray, "c h w"], path: Path, scale: int = 1, *, one_of_many: bool = False
) -> None:
    """Write one image of 1 or 3 channels, each pixel enlarged ``scale`` times."""
    array = _enlarged(image, scale)
    picture = Image.fromarray(array[..., 0] if len(image) == 1 else array)
    save_sheet(picture, path, one_of_many=one_of_many)


def save_sheet(picture: Image.Image, path: Path, *, one_of_many: bool = False) -> None:
    """Write a picture as PNG, whole at any moment; ``one_of_many`` is that of `atomic_write`."""
    with atomic_write(path, one_of_many=one_of_many) as file:
        picture.save(file, "PNG")


def _enlarged(image: UInt8[np.ndarray, "c h w"], scale: int) -> np.ndarray:
    return image.repeat(scale, 1).repeat(scale, 2).transpose(1, 2, 0)


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
    parts = []
    for heading, pictures in bands:
        titled = [_below([*_words(t), _in_colour(_enlarged(p, scale))]) for t, p in pictures]
        parts.append(_below([*_words(heading), _beside(titled)]))
    return Image.fromarray(_below(parts, gap=2 * _GAP))


def _words(text: str) -> list[np.ndarray]:
    if not text:
        return []
    font = ImageFont.load_default(_SIZE)
    line = Image.new("RGB", (int(font.getlength(text)) + 2, _SIZE + 4), "white")
    ImageDraw.Draw(line).text((0, 0), text, "black", font)
    return [np.asarray(line)]


def _in_colour(array: np.ndarray) -> np.ndarray:
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _below(arrays: Sequence[np.ndarray], gap: int = 2) -> np.ndarray:
    width = max(array.shape[1] for array in arrays)
    padded = [_padded(array, (0, gap), (0, width - array.shape[1]), (0, 0)) for array in arrays]
    return np.concatenate(padded)[:-gap]


def _beside(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The same turned by a right angle, bottoms in line."""
    height = max(len(array) for array in arrays)
    padded = [_padded(array, (height - len(array), 0), (0, _GAP), (0, 0)) for array in arrays]
    return np.concatenate(padded, 1)[:, :-_GAP]
