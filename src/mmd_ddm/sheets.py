"""Sheets of images with words: bands one below the other, in each some pictures side by side."""

from collections.abc import Sequence

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmd_ddm.images import to_picture

__all__ = ["sheet", "zoom"]

_GAP, _SIZE, _GROUND = 8, 13, "white"
_SMALLEST = 56  # pixels an image is shown at


def zoom(width: int) -> int:
    """How often a pixel is repeated so that an image this wide can be seen."""
    return max(1, round(_SMALLEST / width))


def sheet(
    bands: Sequence[tuple[str, Sequence[tuple[str, UInt8[Tensor, "_ _ _"]]]]], scale: int = 1
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
                    _beside([_below([*_words(t), to_picture(p, scale)]) for t, p in pictures]),
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
