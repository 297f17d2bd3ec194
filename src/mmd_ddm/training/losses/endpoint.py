r"""Distillation of end points: from the same noise, the student's image is to be its teacher's.

With d pixels, a teacher of more steps, and no real images:

    end points:   |chain(x_T) - teacher(x_T)|^2 / d
    pairs:        the same of a fixed set of x_T, of which the teacher's images are drawn once
    local:        sum over steps t -> s of |step(x_t) - teacher(x_t -> s)|^2 / d

where the last begins every step from the student's own x_t, without gradient through what came
before, and its teacher walks a few times between t and s. A student that is its teacher has
loss 0; one that cannot tell two noises apart draws the mean of their images. Pairs in one step
are knowledge distillation: there eps counts sigma_T / alpha_T times in x_0, so that the one time
lies best where x_t is only just white noise.

References:
    Luhman, Luhman, "Knowledge Distillation in Iterative Generative Models for Improved Sampling
    Speed", 2021.
    Zhou, Chen, Wang, Chen, "Simple and Fast Distillation of Diffusion Models", 2024 (local).
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.data.images import batch
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import image_seeds, sample_noise
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.store import remembered_arrays
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw
from mmd_ddm.training.losses.base import Cost, Loss, Source, draw_batch, mean_of

__all__ = ["EndPoint", "Pairs", "local_loss", "squared_error"]


def squared_error(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """|x - y|^2 / d of each image."""
    return (x - y).square().mean((1, 2, 3))


def local_loss(
    chain: Sampler,
    teacher: Sampler,
    x_T: Float[Tensor, "n c h w"],
    condition: Condition | None = None,
) -> Float[Tensor, " n"]:
    """The error of each step from where the student stands, summed.

    Args:
        chain: of the student; deterministic, and without memory of earlier steps.
        teacher: on the student's times and as many more behind each of them.
        x_T: standard normal noise.
        condition: that the images are drawn under.
    """
    walk, x_t, total = chain.walk(condition), chain.begin(x_T), x_T.new_zeros(len(x_T))
    fine, parts = (*teacher.times, None), len(teacher.times) // len(chain.times)
    for i, (t, s) in enumerate(pairwise((*chain.times, None))):
        assert t is not None
        x_s = chain.step(x_t, t, s, walk, None)
        with torch.no_grad():
            target, own = x_t, teacher.walk(condition)
            for u, v in pairwise(fine[i * parts : (i + 1) * parts + 1]):
                assert u is not None
                target = teacher.step(target, u, v, own, None)
        total = total + squared_error(x_s, target)
        x_t = x_s.detach()
    return total


class EndPoint(Loss):
    """End points of fresh noise, or step by step where ``teacher.local`` says so."""

    of_noise = False

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """See `Loss`; the teacher's calls are in every iteration."""
        own = Cost(0, chain.calls) if config.teacher.local else chain
        return Cost(own.plain + teacher, own.trained)

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`."""
        x_T, _, condition = draw_batch(self.config, chain, self.source, step)

        def each(rows: slice) -> Tensor:
            z, c = x_T[rows], condition and condition[rows]
            if self.config.teacher.local:
                return local_loss(chain, self.teacher, z, c)
            with torch.no_grad():
                y = self.teacher(z, None, c)
            return squared_error(chain(z, None, c), y)

        return mean_of(len(x_T), micro_batch, each)


class Pairs(Loss):
    """End points of ``teacher.pairs`` noises, in uint8; remembered by all that decides them."""

    of_noise = of_latents = False

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """See `Loss`; the teacher draws once."""
        return replace(chain, once=config.teacher.pairs * teacher)

    def __init__(self, config: FinetuneConfig, source: Source) -> None:
        super().__init__(config, source)
        n, seed, teacher = config.teacher.pairs, config.seed, self.teacher
        self._seeds = image_seeds(seed, "pairs", n)

        def compute() -> dict[str, np.ndarray]:
            with source.progress.bar("pairs", n) as bar:
                drawn = draw(
                    teacher, n, seed=seed, purpose="pairs", on_batch=lambda k: bar(advance=k)
                )
            return {"pixels": drawn[0].numpy()}

        kept = remembered_arrays("samples", key_of("pairs", teacher.fingerprint, n, seed), compute)
        self._pixels = torch.from_numpy(kept["pixels"])

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`."""
        denoiser = chain.denoiser
        rows = batch(len(self._pixels), self.config.batch_size, self.config.seed, step)
        seeds = [self._seeds[i] for i in rows.tolist()]
        x_T = sample_noise(seeds, denoiser.latent_shape)[0].to(denoiser.device)
        y = from_uint8(self._pixels[rows]).to(denoiser.device)
        condition = denoiser.conditions(seeds)

        def each(rows: slice) -> Tensor:
            return squared_error(chain(x_T[rows], None, condition and condition[rows]), y[rows])

        return mean_of(len(y), micro_batch, each)
