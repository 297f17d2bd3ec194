"""The one range conversion between pixels and tensors, and grids of images.

Networks and feature extractors see float images in [-1, 1], shape [n, c, h, w]; files and
metrics see uint8. Nothing else in the project converts between the two.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

__all__ = [
    "clamp_straight_through",
    "from_uint8",
    "grid",
    "pairs",
    "save_png",
    "to_picture",
    "to_uint8",
]


def from_uint8(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map 0 ... 255 to [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Clamp to [-1, 1] and round to 0 ... 255, as diffusers' pipelines do."""
    unit = (images.detach().float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8)


def clamp_straight_through(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Clamp to [-1, 1]; the gradient passes as if it had not been clamped.

    A plain clamp has no gradient at saturated pixels, which are most of a black background.
    """
    # In this order the forward value is the clamped one exactly, however large the image's is.
    return images.clamp(-1, 1).detach() + (images - images.detach())


def grid(images: UInt8[Tensor, "n c h w"], columns: int, gap: int = 1) -> UInt8[Tensor, "c H W"]:
    """Tile images row by row on a white ground."""
    n, c, h, w = images.shape
    rows = math.ceil(n / columns)
    sheet = torch.full((c, rows * (h + gap) + gap, columns * (w + gap) + gap), 255).byte()
    for i, image in enumerate(images):
        top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        sheet[:, top : top + h, left : left + w] = image
    return sheet


def pairs(
    base: UInt8[Tensor, "n c h w"],
    finetuned: UInt8[Tensor, "n c h w"],
    real: UInt8[Tensor, "m c h w"],
    columns: int = 12,
) -> UInt8[Tensor, "c H W"]:
    """Same-noise pairs: base above, finetuned below; real images beside them.

    Args:
        base: one image a pair; n is a multiple of ``columns``.
        finetuned: of the same noise.
        real: fills a block of the same height.
        columns: pairs side by side.
    """
    bands, gap = [], 4
    for above, below in zip(base.split(columns), finetuned.split(columns), strict=True):
        bands += [grid(torch.cat([above, below]), columns)]
    left = torch.cat([torch.nn.functional.pad(b, (0, 0, 0, gap), value=255) for b in bands], 1)
    rows = 2 * len(bands)
    right = grid(real[: rows * (len(real) // rows)], len(real) // rows)
    height = max(left.shape[1], right.shape[1])
    left, right = (
        torch.nn.functional.pad(part, (0, 2 * gap, 0, height - part.shape[1]), value=255)
        for part in (left, right)
    )
    return torch.cat([left, right], 2)


def save_png(image: UInt8[Tensor, "c h w"], path: Path, scale: int = 1) -> None:
    """Write one image of 1 or 3 channels, each pixel enlarged ``scale`` times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(image, scale).save(path)


def to_picture(image: UInt8[Tensor, "c h w"], scale: int = 1) -> Image.Image:
    """One image of 1 or 3 channels as Pillow's, each pixel enlarged ``scale`` times."""
    array = image.cpu().permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    if scale == 1:
        return picture
    return picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
    )
