"""One data set in parts that share no picture: what is matched neither judges nor selects.

Pictures are compared pixel by pixel. A held-out one that is also among those to match is left
out, and counted: public test sets hold a few copies of their training images.

The images that checkpoints are selected by come from those to match, a tenth of them: so the
held-out set, and every number that was judged by it, stays what it was.
"""

import hashlib
from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from mmd_ddm.data.images import ImageSet, Split
from mmd_ddm.maths.random import generator

__all__ = ["split_images", "without"]

_MOST_TO_SELECT = 5000


def split_images(
    images: ImageSet, heldout: ImageSet | None, *, seed: int, select: bool = False
) -> Split:
    """Set apart what only evaluation sees, and what only selection does.

    Args:
        images: to match.
        heldout: for evaluation; None sets a seeded fifth of ``images`` apart.
        seed: of what is set apart.
        select: set a tenth of the images to match apart for selection, at most 5,000.

    Raises:
        ValueError: too few images, or too few held-out ones that are not to be matched.
    """
    if heldout is None:
        apart = len(images) // 5
        if apart < 2:
            raise ValueError(f"{images.source} holds {len(images)} images; at least 10 are needed")
        images, held = _apart(images, apart, seed, "held-out")
        heldout = ImageSet(held, f"a fifth of {images.source}")
    for found in (images, heldout):
        if len(found) < 2:
            raise ValueError(f"{found.source} holds one image; at least 2 are needed")
    fresh = without(heldout.pixels, images.pixels)
    if len(fresh) < 2:
        raise ValueError(
            f"{len(heldout) - len(fresh)} of the {len(heldout)} images of {heldout.source} are "
            f"also in {images.source}: hold out others"
        )
    dropped = len(heldout) - len(fresh)
    heldout = replace(heldout, pixels=fresh)
    if not select:
        return Split(images, heldout, dropped)
    matched, chosen = _apart(images, _selection_size(len(images)), seed, "selection")
    chosen = without(chosen, matched.pixels)
    if len(matched) < 2 or len(chosen) < 2:
        raise ValueError(
            f"{images.source} holds {len(images)} images to match: too few, or too many copies, "
            "to set some apart for selection; add images, or set select.every=0"
        )
    selection = ImageSet(chosen, f"a tenth of {images.source}")
    return Split(matched, heldout, dropped, selection)


def _selection_size(n: int) -> int:
    """Enough for KID's error to be the samples' own, and few beside those to match."""
    return min(max(n // 10, 2), _MOST_TO_SELECT)


def _apart(
    images: ImageSet, n: int, seed: int, purpose: str
) -> tuple[ImageSet, UInt8[Tensor, "n c h w"]]:
    """The images without n of them, and those."""
    order = torch.randperm(len(images), generator=generator(seed, 0, 0, purpose))
    return replace(images, pixels=images.pixels[order[n:]]), images.pixels[order[:n]]


def without(
    pixels: UInt8[Tensor, "n c h w"], *others: UInt8[Tensor, "..."]
) -> UInt8[Tensor, "k c h w"]:
    """The images that are in none of the others."""
    seen = {digest for images in others for digest in _hashes(images)}
    return pixels[[digest not in seen for digest in _hashes(pixels)]]


def _hashes(pixels: UInt8[Tensor, "n c h w"]) -> list[bytes]:
    return [hashlib.sha256(image).digest() for image in pixels.contiguous().numpy()]
