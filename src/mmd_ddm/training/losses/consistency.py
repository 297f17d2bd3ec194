r"""Consistency tuning and distillation: x_0 is to be the same all along a trajectory.

In levels rho = sigma / alpha, f(x_t, t) the network's x_0, and r a less noisy level than rho,

    loss = w |f(x_rho) - target|,   target = f(x_r) without gradient,   w = 1 / rho^2 + 1 / 0.5^2,

the norm over all pixels; at r = 0, target is x_r itself. *Tuning* takes x_r of the same image and
noise, and goes from denoising (r = 0) to r = rho in stages,

    log rho ~ N(-1.1, 2^2),   r = rho max(1 - (1 + 8 / (1 + e^rho)) / q^(stage + 1), 0),

so that one step goes from the posterior mean to where the flow ends. *Distillation* takes x_r from
a DDIM step of the base between neighbours of a grid equally spaced in rho^(1/7): what it tends to
is the chain of all these steps. Levels end at the chain's first time.

References:
    Geng, Pokle, Luo, Lin, Kolter, "Consistency Models Made Easy", 2024 (ECT).
    Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023, Algorithm 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.maths.schedules import Schedule
from mmd_ddm.models.conditions import Condition
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.losses.base import Cost, Loss, draw_images, mean_of

__all__ = ["Consistency", "consistency_loss", "neighbours", "next_level"]

_MOST = 80.0  # of rho, as in EDM
_DATA = 0.5  # deviation of images in [-1, 1]


def next_level(rho: Float[Tensor, " n"], stage: int, q: float = 2.0) -> Float[Tensor, " n"]:
    """The level r of tuning that goes with rho."""
    return rho * (1 - (1 + 8 * torch.sigmoid(-rho)) / q ** (stage + 1)).clamp_min(0)


def neighbours(
    low: float, high: float, scales: int, draw: torch.Generator, n: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Levels of a grid from low to high and the next lower ones; the lowest is the data."""
    grid = torch.linspace(low ** (1 / 7), high ** (1 / 7), scales, device=draw.device) ** 7
    grid[0] = 0
    i = torch.randint(1, scales, (n,), generator=draw, device=draw.device)
    return grid[i], grid[i - 1]


def consistency_loss(
    chain: Sampler,
    x_0: Float[Tensor, "n c h w"],
    z: Float[Tensor, "n c h w"],
    rho: Float[Tensor, " n"],
    r: Float[Tensor, " n"],
    teacher: Sampler | None = None,
    condition: Condition | None = None,
) -> Float[Tensor, " n"]:
    """The weighted distance of each image.

    Args:
        chain: of the student.
        x_0: images in [-1, 1].
        z: standard normal noise.
        rho: the levels.
        r: the lower ones; 0 is the data.
        teacher: takes the step from rho to r; None takes the same image and noise.
        condition: of the images.
    """
    t, s = (_times(chain.schedule, level).to(x_0) for level in (rho, torch.where(r > 0, r, rho)))
    (alpha, sigma), (alpha_s, sigma_s) = map(chain.denoiser.coefficients, (t, s))
    at_data = (r == 0)[:, None, None, None]
    x_t, walk = alpha * x_0 + sigma * z, chain.walk(condition)
    student, _ = walk.predict(x_t, t)
    with torch.no_grad():
        found, eps = teacher.walk(condition).predict(x_t, t) if teacher else (x_0, z)
        target, _ = walk.predict(alpha_s * found + sigma_s * eps, s)
        target = torch.where(at_data, found, target)
    weight = rho**-2 + _DATA**-2
    distance: Tensor = torch.linalg.vector_norm((student - target).flatten(1), dim=1)
    return weight * distance


def _times(schedule: Schedule, rho: Tensor) -> Tensor:
    return torch.from_numpy(schedule.time_of(-rho.double().log().cpu().numpy()))


class Consistency(Loss):
    """Tuning, or distillation where ``consistency.teacher`` says so."""

    of_latents = False

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """See `Loss`: two calls of the student and, in distillation, one of the base."""
        return Cost(1 + config.consistency.teacher, 1)

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`."""
        own, teacher = self.config.consistency, self.source.teacher
        x_0, z, condition, draw = draw_images(self.config, chain, self.source, step)
        n, low = len(x_0), chain.schedule.rho(chain.schedule.last)
        high = min(chain.schedule.rho(chain.times[0]), _MOST)
        if teacher is not None:
            rho, r = neighbours(low, high, own.scales, draw, n)
        else:
            rho = torch.randn(n, generator=draw, device=draw.device).mul(2).sub(1.1).exp()
            rho = rho.clamp(low, high)
            r = next_level(rho, step * own.stages // self.config.iterations, own.q)
            r = torch.where(r > low, r, 0)

        def each(rows: slice) -> Tensor:
            return consistency_loss(
                chain, x_0[rows], z[rows], rho[rows], r[rows], teacher,
                condition and condition[rows],
            )  # fmt: skip

        return mean_of(n, micro_batch, each)
