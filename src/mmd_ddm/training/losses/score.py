r"""Distribution matching distillation: the chain's images against two denoisers, one of them fake.

Of x drawn by the chain, noised to x_t, with D_r the base's x_0 and D_f that of a critic which is
trained to denoise what the chain draws,

    loss  = |x - sg(x - g)|^2 / 2d,   g = (D_f(x_t) - D_r(x_t)) / mean |x - D_r(x_t)|,

whose gradient is that of KL between both at level t, but for a weight. The critic takes
``score.updates`` iterations to each of the chain's,

    loss_f = |eps_f(x_t) - z|^2 / d,

and has its own rate and moments in one state; Adam leaves weights without gradient as they are.
With ``chain.backward = last-1`` an iteration of the chain differentiates one call, as published;
by default, all. There is no adversarial term, hence no real image is read.

References:
    Yin et al., "One-step Diffusion with Distribution Matching Distillation", 2024.
    Yin et al., "Improved Distribution Matching Distillation for Fast Image Synthesis", 2024 (DMD2:
    two time scales).
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.losses.base import Cost, Loss, Source, draw_batch, mean_of
from mmd_ddm.training.losses.endpoint import squared_error

__all__ = ["Score", "critic_loss", "score_loss"]

_ENDS = 0.02, 0.98  # of the times, between which levels are drawn


def score_loss(
    x: Float[Tensor, "n c h w"],
    base: Sampler,
    critic: Sampler,
    t: Float[Tensor, " n"],
    z: Float[Tensor, "n c h w"],
    condition: Condition | None = None,
) -> Float[Tensor, " n"]:
    """Of each image; its gradient in x is g / d.

    Args:
        x: images that the chain draws.
        base: knows the data.
        critic: knows the chain.
        t: times.
        z: standard normal noise.
        condition: that they are drawn under.
    """
    with torch.no_grad():
        alpha, sigma = base.denoiser.coefficients(t)
        x_t = alpha * x + sigma * z
        real, fake = (one.walk(condition).predict(x_t, t)[0] for one in (base, critic))
        size = (x - real).abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-5)
        target = x - (fake - real) / size
    return squared_error(x, target) / 2


def critic_loss(
    x: Float[Tensor, "n c h w"],
    critic: Sampler,
    t: Float[Tensor, " n"],
    z: Float[Tensor, "n c h w"],
    condition: Condition | None = None,
) -> Float[Tensor, " n"]:
    """The error of eps of each image; the arguments are those of `score_loss`."""
    alpha, sigma = critic.denoiser.coefficients(t)
    return squared_error(critic.walk(condition).predict(alpha * x + sigma * z, t)[1], z)


class Score(Loss):
    """The critic begins as the base."""

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """See `Loss`: the mean over one iteration of the chain and those of the critic."""
        updates = config.score.updates
        plain = chain.plain + 2 + updates * chain.calls
        return Cost(plain / (updates + 1), (chain.trained + updates) / (updates + 1))

    def __init__(self, config: FinetuneConfig, source: Source) -> None:
        super().__init__(config, source)
        self._critic = deepcopy(self.teacher)
        self._critic.guidance = 1.0
        self.beside = self._critic.denoiser.network.requires_grad_(True)

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`."""
        config, critic, updates = self.config, self._critic, self.config.score.updates
        critic.recompute, critic.keep = chain.recompute, chain.keep
        x_T, noise, condition = draw_batch(config, chain, self.source, step)
        draw, T = generator(config.seed, 0, step, "score", x_T.device), len(chain.schedule)
        low, high = (int(share * T) for share in _ENDS)
        whole = torch.randint(low, high, (len(x_T),), generator=draw, device=x_T.device)
        t = x_T.new_tensor(chain.schedule.place(whole.tolist()))
        z = torch.randn(x_T.shape, generator=draw, device=x_T.device)
        of_chain = step % (updates + 1) == updates

        def each(rows: slice) -> Tensor:
            own, c = None if noise is None else noise[:, rows], condition and condition[rows]
            with torch.set_grad_enabled(torch.is_grad_enabled() and of_chain):
                x = chain(x_T[rows], own, c)
            if of_chain:
                return score_loss(x, self.teacher, critic, t[rows], z[rows], c)
            return critic_loss(x, critic, t[rows], z[rows], c)

        return mean_of(len(x_T), micro_batch, each)
