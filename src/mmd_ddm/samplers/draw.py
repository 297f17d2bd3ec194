"""Draw images through a chain, each from a generator of its own; uint8, as files hold them."""

import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.maths.random import SAMPLE, image_seeds, sample_noise
from mmd_ddm.maths.slerp import slerp
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs import ranks
from mmd_ddm.runs.launch import world
from mmd_ddm.samplers.base import Sampler

__all__ = ["draw", "draw_arc"]


@torch.no_grad()
def draw(
    sampler: Sampler,
    n: int,
    *,
    seed: int = 0,
    purpose: str = SAMPLE,
    batch_size: int = 0,
    start: Callable[[Sequence[int]], Tensor] | None = None,
    reference: Condition | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[UInt8[Tensor, "n c h w"], float]:
    """Draw n images, each from a generator of its own, and the images drawn a second.

    Of several ranks each draws a share of the batches, and all get all the images.

    Args:
        sampler: the chain, on its device.
        n: how many.
        seed: of the images, as `image_seeds` has it.
        purpose: what they are drawn for; other purposes have other noise.
        batch_size: images at once; the pictures do not depend on it. 0 takes what is fast: 64 on
            a CPU, whose caches hold no more, 512 on a GPU.
        start: gives the images in [-1, 1] to noise and begin with, of these seeds (ES-DDPM); None
            begins with white noise.
        reference: conditions of reference images, of which `Condition.of_seeds` gives each image
            one by its seed; None is what the model says, `Denoiser.conditions`.
        on_batch: told how many images each batch had.
    """
    denoiser = sampler.denoiser
    device, shape = denoiser.device, denoiser.latent_shape
    images, seconds = [torch.empty((0, *denoiser.shape), dtype=torch.uint8)], 0.0
    batch_size = batch_size or (64 if device.type == "cpu" else 512)
    of = ranks.shares(n, batch_size)
    mine = image_seeds(seed, purpose, n)[ranks.own(of)]
    for i in range(0, len(mine), batch_size):
        seeds = mine[i : i + batch_size]
        z = sample_noise(seeds, shape, sampler.draws).to(device)
        began = time.monotonic()
        x_T = sampler.diffuse(start(seeds).to(device), z[0]) if start else z[0]
        condition = (
            reference.of_seeds(seeds).to(device) if reference else denoiser.conditions(seeds)
        )
        x_0 = sampler(x_T, z[1:] if sampler.stochastic else None, condition)
        images.append(_to_pixels(sampler, x_0))
        seconds += time.monotonic() - began
        if on_batch:
            on_batch(len(seeds))
    if on_batch and len(mine) < n:
        on_batch(n - len(mine))  # what the other ranks drew
    slowest = float(ranks.gather(torch.tensor([seconds]), ranks.shares(world())).max())
    return ranks.gather(torch.cat(images), of), n / slowest


@torch.no_grad()
def draw_arc(sampler: Sampler, seed: int, frames: int) -> UInt8[Tensor, "frames c h w"]:
    """Images from the noise of ``seed`` to that of ``seed + 1``, along the arc (Eq. 8).

    Samplers that add noise add the first image's to all of them, and all are of its class.

    Args:
        sampler: the chain, on its device.
        seed: of the first image.
        frames: how many; at least 2.
    """
    denoiser = sampler.denoiser
    z = sample_noise((seed, seed + 1), denoiser.latent_shape, sampler.draws).to(denoiser.device)
    added = z[1:, :1].expand(-1, frames, -1, -1, -1)
    x_T = slerp(z[0, 0], z[0, 1], frames)
    condition = denoiser.conditions([seed] * frames)
    x_0 = sampler(x_T, added if sampler.stochastic else None, condition)
    return _to_pixels(sampler, x_0)


def _to_pixels(sampler: Sampler, x_0: Tensor) -> UInt8[Tensor, "n c h w"]:
    """What is not a number would be black, and judged as an image."""
    images = sampler.denoiser.to_images(x_0)
    if not bool(images.isfinite().all()):
        sampler.denoiser.check_decoder(x_0)
        raise ValueError(
            f"the {len(sampler.times)} steps of {type(sampler).__name__} from t = "
            f"{sampler.times[0]:g} end in values that are not numbers: take other steps, another "
            "sampler, or float32"
        )
    return to_uint8(images).cpu()
