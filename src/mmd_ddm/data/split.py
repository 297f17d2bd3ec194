"""One data set in parts that share no picture: what is matched neither judges nor selects.

Pictures are compared pixel by pixel. A held-out one that is also among those to match is left
out, and counted: public test sets hold a few copies of their training images.

The images that checkpoints are selected by come from those to match, a tenth of them: so the
held-out set, and every number that was judged by it, stays what it was.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

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
        heldout = replace(held, source=f"a fifth of {images.source}")
    for found in (images, heldout):
        if len(found) < 2:
            raise ValueError(f"{found.source} holds one image; at least 2 are needed")
    fresh = without(heldout, images)
    dropped = len(heldout) - len(fresh)
    if len(fresh) < 2:
        raise ValueError(
            f"{dropped} of the {len(heldout)} images of {heldout.source} are "
            f"also in {images.source}: hold out others"
        )
    if not select:
        return Split(images, fresh, dropped)
    matched, chosen = _apart(images, _selection_size(len(images)), seed, "selection")
    selection = replace(without(chosen, matched), source=f"a tenth of {images.source}")
    if len(matched) < 2 or len(selection) < 2:
        raise ValueError(
            f"{images.source} holds {len(images)} images to match: too few, or too many copies, "
            "to set some apart for selection; add images, or set select.every=0"
        )
    return Split(matched, fresh, dropped, selection)


def _selection_size(n: int) -> int:
    """Enough for KID's error to be the samples' own, and few beside those to match."""
    return min(max(n // 10, 2), _MOST_TO_SELECT)


def _apart(images: ImageSet, n: int, seed: int, purpose: str) -> tuple[ImageSet, ImageSet]:
    """The images without n of them, and those; about the same share of every class."""
    order = torch.randperm(len(images), generator=generator(seed, 0, 0, purpose))
    if images.labels is not None:
        of_class = nn.functional.one_hot(images.labels[order])
        rank = (of_class.cumsum(0) * of_class).sum(1) - 0.5  # within its class, in that order
        share = rank / of_class.sum(0)[images.labels[order]]
        order = order[share.argsort(stable=True)]
    apart = replace(images.take(order[:n]), skipped=(), told=())  # said of the whole
    return images.take(order[n:]), apart


def without(images: ImageSet, *others: ImageSet) -> ImageSet:
    """The images whose pixels are in none of the others."""
    seen = {digest for one in others for digest in _hashes(one)}
    return images.take(torch.tensor([digest not in seen for digest in _hashes(images)]))


def _hashes(images: ImageSet) -> Iterator[bytes]:
    for block in images.blocks():
        yield from (hashlib.sha256(image).digest() for image in block.contiguous().numpy())
