"""Random generators, derived and never shared.

A training draw is named by (seed, rank, step, purpose): a run that resumes at step 137 draws what
the uninterrupted run drew there. A *sample* is named by its own seed alone, so that image i of
seed s is the same picture at any batch size and on any number of processes, and is the picture
that ``torch.Generator().manual_seed(s + i)`` gives in a diffusers pipeline.
"""

import hashlib
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["generator", "sample_noise"]


def generator(
    seed: int, rank: int, step: int, purpose: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one draw; different for any difference in its name."""
    name = f"{seed}/{rank}/{step}/{purpose}".encode()
    digest = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
    return torch.Generator(device=device).manual_seed(digest)


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
