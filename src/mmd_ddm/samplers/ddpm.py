r"""DDPM ancestral sampling on a sub-sequence of times.

References:
    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, Eqs. 6 and 7.
    Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021 (sub-sequences).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk

__all__ = ["DDPM", "VARIANCES"]

VARIANCES = ("fixed-small", "fixed-large")


class DDPM(Sampler):
    r"""Draw x_s from the posterior q(x_s | x_t, x_0) at the predicted x_0.

    With beta = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, which is 1 - abar_t / abar_s on betas,
    the mean is

        (alpha_s beta x_0 + alpha_t / alpha_s sigma_s^2 x_t) / sigma_t^2

    and the variance beta (*fixed-large*) or beta sigma_s^2 / sigma_t^2 (*fixed-small*). The step
    to the data adds no noise.

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        variance: one of `VARIANCES`.
        options: of `Sampler`.
    """

    stochastic = True

    def __init__(
        self,
        denoiser: Denoiser,
        times: Sequence[float],
        *,
        variance: str = "fixed-small",
        **options: Any,
    ) -> None:
        super().__init__(denoiser, times, **options)
        if variance not in VARIANCES:
            raise ValueError(
                f"unknown variance {variance!r}; choose one of {', '.join(VARIANCES)}"
            )
        self.variance = variance

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """One draw from the posterior."""
        x_0 = self.clamped(walk.predict(x_t, t)[0])
        schedule = self.schedule
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        ratio, beta = schedule.transition(t, s)
        mean: Tensor = (alpha_s * beta * x_0 + ratio**0.5 * sigma_s**2 * x_t) / sigma_t**2
        return mean if z is None else mean + self.std(t, s) * z

    def std(self, t: float, s: float | None) -> float:
        """Standard deviation of the noise that the step adds; 0 towards the data."""
        if s is None:
            return 0.0
        (_, sigma_t), (_, sigma_s) = self.schedule(t), self.schedule(s)
        beta = self.schedule.transition(t, s)[1]
        std: float = beta**0.5 * (sigma_s / sigma_t if self.variance == "fixed-small" else 1.0)
        return std
