r"""DDIM, from deterministic to ancestral.

References:
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2020, Eqs. 12 and 16.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk

__all__ = ["DDIM"]


class DDIM(Sampler):
    r"""x_s = alpha_s x_0 + sqrt(sigma_s^2 - w^2) eps + w z.

    with w = eta sigma_s / sigma_t sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2); the root is
    that of 1 - abar_t / abar_s on betas.

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        eta: 0 is deterministic (the paper's sigma_t = 0); 1 is DDPM with its smaller variance.
        options: of `Sampler`.
    """

    def __init__(
        self, denoiser: Denoiser, times: Sequence[float], *, eta: float = 0.0, **options: Any
    ) -> None:
        super().__init__(denoiser, times, **options)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be from 0 to 1; got {eta:g}")
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """One step of Eq. 12; eps is not recomputed after x_0 is clipped, as in diffusers."""
        x_0, eps = walk.predict(x_t, t)
        alpha_s, sigma_s = self.schedule(s)
        kept = max(sigma_s**2 - self.w(t, s) ** 2, 0.0) ** 0.5
        x_s: Tensor = alpha_s * self.clamped(x_0) + kept * eps
        return x_s if z is None else x_s + self.std(t, s) * z

    def w(self, t: float, s: float | None) -> float:
        """The part of sigma_s that eta replaces by new noise."""
        (_, sigma_t), (_, sigma_s) = self.schedule(t), self.schedule(s)
        w: float = self.eta * sigma_s / sigma_t * self.schedule.transition(t, s)[1] ** 0.5
        return w

    def std(self, t: float, s: float | None) -> float:
        """Standard deviation of the noise that the step adds."""
        return self.w(t, s)
