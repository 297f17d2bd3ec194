"""Features of a whole image set: computed once, remembered by content, memory-mapped.

The key is made of the hashes of the pixels, of the extractor's weights and of the code, so that a
bank can never be read for other images or another space.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.data.images import ImageSet
from mmd_ddm.data.stored import Stored
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.runs import ranks
from mmd_ddm.runs.fingerprint import code_sha256, key_of
from mmd_ddm.runs.store import remembered_file

__all__ = ["cached_features", "extract"]


@torch.no_grad()
def extract(
    pixels: Tensor | Stored,
    phi: FeatureExtractor,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Float[Tensor, "n d"]:
    """Features of uint8 images, in batches; float32 on the CPU.

    Of several ranks each computes a share of the batches, and all get all the features.

    Args:
        pixels: uint8, [n, c, h, w], or where they are read from.
        phi: the extractor, on ``device``.
        batch_size: images at once.
        device: where to compute.
        on_batch: told how many images each batch had.
    """
    of = ranks.shares(len(pixels), batch_size)
    every = torch.arange(len(pixels))
    mine, found, done = every[ranks.own(of)], torch.empty(0), 0
    for rows in (mine if len(mine) else every[:1]).split(batch_size):
        vectors = phi(from_uint8(pixels[rows].to(device))).float().cpu()
        if not done:  # kept apart one by one, they would part the memory of the batches
            found = vectors.new_empty((max(len(mine), 1), vectors.shape[1]))
        kept = vectors[: len(found) - done]
        found[done : done + len(kept)] = kept
        done += len(kept)
        if on_batch:
            on_batch(len(rows))
    return ranks.gather(found[: min(done, len(mine))], of)


def cached_features(
    images: ImageSet,
    phi: FeatureExtractor,
    *,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Float[Tensor, "n d"]:
    """Features of an image set, mapped from the cache; computed once for a release of this code.

    Args:
        images: the set.
        phi: the extractor, on ``device``.
        device: where to compute.
        on_batch: told how many images each batch had, if they have to be computed.

    Raises:
        ValueError: the extractor gives an image another vector each time, or no numbers.
    """
    (first,) = extract(images[:1], phi, device=device).numpy()
    key = key_of(code_sha256(), images.sha256, phi.sha256, torch.device(device).type)

    def compute() -> np.ndarray:
        found = extract(images.store, phi, device=device, on_batch=on_batch).numpy()
        if not np.isfinite(found).all():
            raise ValueError(
                f"{phi.name} gives images of {images.source} vectors that are not numbers: choose "
                "another space, or other weights of it"
            )
        return found

    def read(path: Path) -> Tensor:
        # Copy-on-write, so that torch may treat the array as writable.
        bank = np.load(path, mmap_mode="c")
        # Its name says whose it is, but files are copied and renamed.
        of_phi = bank.shape == (len(images), len(first)) and np.allclose(
            bank[0], first, rtol=1e-2, atol=1e-2 * float(np.abs(first).max())
        )
        if not of_phi:
            raise ValueError(
                f"{phi.name} gives the first image of {images.source} another vector each time: "
                "a feature space has to be a function"
            )
        return torch.from_numpy(bank)

    readable = re.sub(r"[^\w.-]+", "-", phi.name)[:60]
    return remembered_file(
        "features", f"{readable}-{key}.npy", compute, np.save, read, together=True
    )
