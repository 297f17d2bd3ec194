"""One picture, from the bytes of its file to pixels; or why not, in words that follow its name.

PNG, JPEG, WebP, BMP, GIF and TIFF are decoded, of one frame, turned as their EXIF says, of at most
twice the pixels at which Pillow warns. Of a grey pixel's 16 bits the upper 8 are taken, as Pillow
itself does in colour.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.kinds import damage, kind_of

__all__ = [
    "MODES", "WHOLE", "Cut", "Damaged", "Decoded", "Example", "Files", "Refused", "decode", "fit",
]  # fmt: skip

MODES = {1: "L", 3: "RGB"}
_DECODED = ("PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF")
_FORMATS = tuple(name.upper() for name in _DECODED)


class Refused(ValueError):
    """Why a picture is not taken, as words that follow its name."""


class Damaged(Refused):
    """There is not one picture in it that could be read."""


class Example(NamedTuple):
    """A picture's file.

    Attributes:
        name: of it.
        content: reads it; raises `Refused`.
        label: what is said beside it to be its class, if that was asked for.
        caption: likewise.
    """

    name: str
    content: Callable[[], bytes]
    label: Any = None
    caption: Any = None


Files = Iterator[Example]


class Cut(NamedTuple):
    """How a picture becomes smaller.

    Attributes:
        crop: left, upper, right and lower edge, cut out first of a picture that has not the size.
        resample: how it is scaled.
    """

    crop: tuple[int, int, int, int] | None = None
    resample: Image.Resampling = Image.Resampling.BICUBIC


WHOLE = Cut()


class Decoded(NamedTuple):
    """A picture.

    Attributes:
        pixels: uint8, [c, h, w].
        size: (height, width) that it had before it was scaled.
    """

    pixels: Tensor
    size: tuple[int, int]


def decode(
    content: bytes, shape: tuple[int, int, int] | None, read: ReadConfig, cut: Cut = WHOLE
) -> Decoded:
    """One picture.

    Args:
        content: of its file.
        shape: (c, h, w) that it must have; None takes its own size, and colour.
        read: what is done instead of refusing.
        cut: see there.

    Raises:
        Refused: it is not taken; `Damaged` if it cannot be read.
    """
    channels = 3 if shape is None else shape[0]
    if channels not in MODES:
        raise Refused(f"is a picture, of 1 or 3 channels; the model takes {channels}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow only warns of is read
            return fit(_open(content, MODES[channels], read), shape, read, cut)
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise Refused(f"has more than {most:,} pixels; scale it down first") from error
    except Exception as error:  # a damaged file raises a dozen kinds
        raise Damaged(_why(content, error)) from error


def fit(
    picture: Image.Image,
    shape: tuple[int, int, int] | None,
    read: ReadConfig,
    cut: Cut = WHOLE,
) -> Decoded:
    """A picture of mode L or RGB in the size of this shape.

    Raises:
        Refused: it is of another size, or too small to be cut.
    """
    if shape is not None and (picture.height, picture.width) != shape[1:] and cut.crop:
        if picture.width < cut.crop[2] or picture.height < cut.crop[3]:
            raise Refused(
                f"is {picture.width}x{picture.height} pixels; the crop of this set reaches to "
                f"{cut.crop[2]}x{cut.crop[3]}"
            )
        picture = picture.crop(cut.crop)
    size = picture.height, picture.width
    if shape is not None and size != shape[1:]:
        if not read.resize:
            raise Refused(
                f"is {picture.width}x{picture.height} pixels; {shape[2]}x{shape[1]} are needed; "
                "pass --resize to crop and scale"
            )
        picture = _crop_and_scale(picture, shape[1], shape[2], cut.resample)
    array = np.array(picture).reshape(picture.height, picture.width, -1)
    return Decoded(torch.from_numpy(array).permute(2, 0, 1), size)


def _open(content: bytes, mode: str, read: ReadConfig) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
        frames = getattr(opened, "n_frames", 1) if opened.format != "MPO" else 1
        # Pillow 10 names a PNG of 16 bits as it names a TIFF of 32.
        deep = opened.mode.startswith("I;16") or (opened.mode, opened.format) == ("I", "PNG")
        upright = ImageOps.exif_transpose(opened)
    upright = _upper_bits(upright) if deep else upright
    transparent = _is_transparent(upright)
    if frames > 1:
        raise Damaged(f"is animated or has pages, {frames} frames; keep the one that you mean")
    if upright.mode[0] in "IF":
        raise Refused("has 32 bits a pixel, which do not say what is white; convert it to 8 or 16")
    if mode == "L" and upright.mode not in ("L", "1", "LA") and not read.resize:
        raise Refused(
            f"has channels {upright.mode}; the model takes 1 (grey); pass --resize to convert it"
        )
    if transparent:
        if not read.background:
            raise Refused("is partly transparent; pass --background white, black or #rrggbb")
        ground = Image.new("RGBA", upright.size, read.background)
        upright = Image.alpha_composite(ground, upright.convert("RGBA"))
    return upright.convert(mode)


def _why(content: bytes, error: Exception) -> str:
    """What is wrong with a file that cannot be decoded."""
    kind = kind_of(content)
    if kind.removeprefix("a ").removesuffix(" picture") not in _DECODED:
        return f"cannot be read: it is {kind}; {', '.join(_DECODED)} are read"
    known = not isinstance(error, UnidentifiedImageError)
    return f"cannot be read: it is {kind}, damaged{f' ({damage(error)})' * known}"


def _upper_bits(picture: Image.Image) -> Image.Image:
    """Of grey pixels of 16 bits; one shade may be transparent."""
    deep = np.asarray(picture)
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    if "transparency" not in picture.info:
        return grey
    opaque = np.where(deep == picture.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(opaque)))


def _is_transparent(picture: Image.Image) -> bool:
    if not picture.has_transparency_data:
        return False
    return picture.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _crop_and_scale(
    picture: Image.Image, height: int, width: int, resample: Image.Resampling
) -> Image.Image:
    scale = min(picture.width / width, picture.height / height)
    # Rounding must not lead outside of the picture.
    crop_w, crop_h = min(width * scale, picture.width), min(height * scale, picture.height)
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return picture.resize((width, height), resample, box=box)
