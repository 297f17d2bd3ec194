"""One data set in parts that share no picture: what is matched never judges.

Pictures are compared pixel by pixel. A held-out one that is also among those to match is left
out, and counted: public test sets hold a few copies of their training images.
"""

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from mmd_ddm.data import ImageSet
from mmd_ddm.rng import generator

__all__ = ["Split", "split_images"]


@dataclass(frozen=True)
class Split:
    """The parts.

    Attributes:
        reference: the images to match.
        heldout: those that only evaluation sees.
        dropped: held-out images that were left out.
    """

    reference: ImageSet
    heldout: ImageSet
    dropped: int


def split_images(images: ImageSet, heldout: ImageSet | None, *, seed: int) -> Split:
    """Set apart what only evaluation sees.

    Args:
        images: to match.
        heldout: for evaluation; None sets a seeded fifth of ``images`` apart.
        seed: of that fifth.

    Raises:
        ValueError: too few images, or too few held-out ones that are not to be matched.
    """
    if heldout is None:
        apart = len(images) // 5
        if apart < 2:
            raise ValueError(f"{images.source} holds {len(images)} images; at least 10 are needed")
        order = torch.randperm(len(images), generator=generator(seed, 0, 0, "held-out"))
        held = images.pixels[order[:apart]]
        heldout = ImageSet(held, f"a fifth of {images.source}")
        images = replace(images, pixels=images.pixels[order[apart:]])
    for found in (images, heldout):
        if len(found) < 2:
            raise ValueError(f"{found.source} holds one image; at least 2 are needed")
    fresh = _without(heldout.pixels, images.pixels)
    if len(fresh) < 2:
        raise ValueError(
            f"{len(heldout) - len(fresh)} of the {len(heldout)} images of {heldout.source} are "
            f"also in {images.source}: hold out others"
        )
    return Split(images, replace(heldout, pixels=fresh), len(heldout) - len(fresh))


def _without(
    pixels: UInt8[Tensor, "n c h w"], others: UInt8[Tensor, "m c h w"]
) -> UInt8[Tensor, "k c h w"]:
    seen = set(_hashes(others))
    return pixels[[digest not in seen for digest in _hashes(pixels)]]


def _hashes(pixels: UInt8[Tensor, "n c h w"]) -> list[bytes]:
    return [hashlib.sha256(image).digest() for image in pixels.contiguous().numpy()]
