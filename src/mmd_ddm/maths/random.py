"""Random generators, derived and never shared.

A training draw is named by (seed, rank, step, purpose): a run that resumes at step 137 draws what
the uninterrupted run drew there. An image is named by (seed, purpose, i), so that it is the same
picture at any batch size and on any number of processes, and that no two seeds and no two purposes
share noise: what selects a checkpoint never judges it. Images for people alone are named by
``seed + i``, which is the picture that ``torch.Generator().manual_seed(seed + i)`` gives in a
diffusers pipeline.
"""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["COPIES", "JUDGE", "SAMPLE", "SELECT", "generator", "image_seeds", "sample_noise"]

SAMPLE, JUDGE, SELECT, COPIES = "sample", "judge", "select", "copies"  # what images are for


def generator(
    seed: int, rank: int, step: int, purpose: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one draw; different for any difference in its name."""
    return torch.Generator(device=device).manual_seed(_digest(f"{seed}/{rank}/{step}/{purpose}"))


def image_seeds(seed: int, purpose: str, n: int) -> Sequence[int]:
    """One seed an image: a hash of (seed, purpose, i), or ``seed + i`` for `SAMPLE`."""
    if purpose == SAMPLE:
        return range(seed, seed + n)
    return [_digest(f"{seed}/{purpose}/{i}") for i in range(n)]


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def sample_noise(
    seeds: Iterable[int], shape: tuple[int, ...], draws: int = 1
) -> Float[Tensor, "draws n *shape"]:
    """Standard normal noise, one generator an image, drawn on the CPU.

    Args:
        seeds: one seed an image.
        shape: of one image, (c, h, w).
        draws: how many times each image's generator is asked in turn: 1 for x_T alone, 1 + K for
            a stochastic sampler of K steps.
    """
    images = []
    for seed in seeds:
        one = torch.Generator().manual_seed(seed)
        images.append(
            torch.stack([torch.randn((1, *shape), generator=one)[0] for _ in range(draws)])
        )
    return torch.stack(images, dim=1)
