"""Gamma estimated for a model: what ``mmd-ddm gamma`` runs."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.models.denoiser import Denoiser

__all__ = ["second_moments"]


def second_moments(
    denoiser: Denoiser, pixels: Tensor, samples: int, *, seed: int, start: int, batch_size: int
) -> Iterator[float]:
    """Gamma_t for t = start ... T-1, each from noisy images of its own.

    Args:
        denoiser: on its device.
        pixels: uint8, [n, c, h, w]; chosen from at random.
        samples: noisy images a time.
        seed: of the choice and the noise; with t, it names the draw.
        start: the first time wanted.
        batch_size: images at once.
    """
    for t in range(start, len(denoiser.schedule)):
        draw = generator(seed, 0, t, "gamma")
        alpha_t, sigma_t = denoiser.schedule(t)
        total = 0.0
        for rows in torch.randint(len(pixels), (samples,), generator=draw).split(batch_size):
            x_0 = from_uint8(pixels[rows])
            x_t = alpha_t * x_0 + sigma_t * torch.randn(x_0.shape, generator=draw)
            with torch.no_grad():
                eps = denoiser(x_t.to(denoiser.device), t)
            total += float(eps.square().mean((1, 2, 3)).sum())
        yield total / samples
