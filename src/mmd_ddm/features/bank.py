"""Features of a whole image set: computed once, cached on disk by content, memory-mapped.

The key is the hash of the pixels and the hash of the extractor's weights, so that a bank can
never be read for other images or another space.
"""

import hashlib
import os
import re
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.runs import ranks
from mmd_ddm.runs.launch import rank
from mmd_ddm.runs.store import cache_dir

__all__ = ["cached_features", "extract"]


@torch.no_grad()
def extract(
    pixels: Tensor,
    phi: FeatureExtractor,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Float[Tensor, "n d"]:
    """Features of uint8 images, in batches; float32 on the CPU.

    Of several ranks each computes a share of the batches, and all get all the features.

    Args:
        pixels: uint8, [n, c, h, w].
        phi: the extractor, on ``device``.
        batch_size: images at once.
        device: where to compute.
        on_batch: told how many images each batch had.
    """
    of = ranks.shares(len(pixels), batch_size)
    mine = pixels[ranks.own(of)]
    rows = []
    for batch in (mine if len(mine) else pixels[:1]).split(batch_size):
        rows.append(phi(from_uint8(batch.to(device))).float().cpu())
        if on_batch:
            on_batch(len(batch))
    return ranks.gather(torch.cat(rows)[: len(mine)], of)


def cached_features(
    images: ImageSet,
    phi: FeatureExtractor,
    *,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Float[Tensor, "n d"]:
    """Features of an image set, from the cache if they are there.

    Raises:
        ValueError: the file in the cache is not what this extractor makes of these images.
    """
    key = hashlib.sha256(f"{images.sha256}/{phi.sha256}".encode()).hexdigest()[:32]
    readable = re.sub(r"[^\w.-]+", "-", phi.name)[:60]
    path = cache_dir() / f"{readable}-{key}.npy"
    missing = ranks.any_of(not path.is_file())
    if missing:
        features = extract(images.pixels, phi, device=device, on_batch=on_batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{rank()}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, features.numpy())
        temporary.replace(path)
    # Copy-on-write, so that torch may treat the array as writable.
    bank = torch.from_numpy(np.load(path, mmap_mode="c"))
    if not missing and not _is_of(bank, images, phi, device):
        raise ValueError(
            f"{path} does not hold the features of {images.source} in {phi.name}: it was made by "
            "other weights or of other images; remove it"
        )
    return bank


def _is_of(
    bank: Tensor, images: ImageSet, phi: FeatureExtractor, device: torch.device | str
) -> bool:
    """Whether the bank is as long as it should be and has the first image's vector.

    Its name says so too, but files are copied and renamed.
    """
    (row,) = extract(images.pixels[:1], phi, device=device)
    if bank.shape != (len(images), len(row)):
        return False
    return torch.allclose(bank[0], row, rtol=1e-2, atol=1e-2 * float(row.abs().max()))
