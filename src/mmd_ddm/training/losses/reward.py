r"""Reward finetuning: - E r(x_0) of what the chain draws, by backpropagation through it.

``chain.backward = last-K`` is DRaFT-K, ``random-K`` the spirit of AlignProp. DRaFT-LV draws x_0
without gradient, noises it again to the last time t, several times, and averages over

    - r(x_0(alpha_t x_0 + sigma_t z, t)):

the gradient of the last step with less noise. Nothing keeps the images diverse: see recall.

References:
    Clark, Vicol, Swersky, Fleet, "Directly Fine-Tuning Diffusion Models on Differentiable
    Rewards", 2024.
    Prabhudesai, Goyal, Pathak, Fragkiadaki, "Aligning Text-to-Image Diffusion Models with Reward
    Backpropagation", 2023.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.maths.pixels import clamp_straight_through
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.losses.base import Cost, Loss, draw_batch, mean_of

__all__ = ["Reward", "repeated_loss"]


def repeated_loss(
    chain: Sampler,
    reward: Callable[[Tensor], Tensor],
    x_0: Float[Tensor, "n c h w"],
    z: Float[Tensor, "k n c h w"],
    condition: Condition | None = None,
) -> Float[Tensor, " n"]:
    """DRaFT-LV's: the mean over k.

    Args:
        chain: asked at the last of its times.
        reward: one number an image of what the network predicts.
        x_0: that were drawn.
        z: standard normal noise.
        condition: that they were drawn under.
    """
    t = chain.times[-1]
    alpha, sigma = chain.schedule(t)
    walk = chain.walk(condition)
    found = [reward(walk.predict(alpha * x_0 + sigma * one, t)[0]) for one in z]
    return -torch.stack(found).mean(0)


class Reward(Loss):
    """Of the last of the chain's images, or of several (``reward.repeats``)."""

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """See `Loss`; repeated last steps alone are differentiated."""
        repeats = config.reward.repeats
        return Cost(chain.calls, repeats) if repeats else chain

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`.

        Raises:
            ValueError: a reward that is not one number an image.
        """
        config, repeats = self.config, self.config.reward.repeats
        x_T, noise, condition = draw_batch(config, chain, self.source, step)
        draw = generator(config.seed, 0, step, "reward", x_T.device)
        z = torch.randn((repeats, *x_T.shape), generator=draw, device=x_T.device)

        def each(rows: slice) -> Tensor:
            own, c = None if noise is None else noise[:, rows], condition and condition[rows]
            with torch.set_grad_enabled(torch.is_grad_enabled() and not repeats):
                x_0 = chain(x_T[rows], own, c)
            if repeats:
                return repeated_loss(chain, self._rewards(chain), x_0, z[:, rows], c)
            return -self._rewards(chain)(x_0)

        return mean_of(len(x_T), micro_batch, each)

    def _rewards(self, chain: Sampler) -> Callable[[Tensor], Tensor]:
        reward = self.source.reward
        assert reward is not None

        def rewards(x_0: Tensor) -> Tensor:
            found = reward(clamp_straight_through(chain.denoiser.to_loss(x_0)))
            if found.shape[1] != 1:
                raise ValueError(
                    f"reward.of = {reward.name} gives {found.shape[1]} numbers an image; one is "
                    "needed"
                )
            one: Tensor = found[:, 0]
            return one

        return rewards
