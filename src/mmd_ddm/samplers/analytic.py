r"""Analytic-DPM and Analytic-DDIM: the variance of each step that is optimal for the network.

A step that predicts x_0 as a point forgets how uncertain x_0 is. Its variance given x_t is, in the
mean over pixels and x_t,

    cov_t = (sigma_t / alpha_t)^2 (1 - Gamma_t)      clipped to 0 ... 1, as data lie in [-1, 1],

with Gamma_t of `mmd_ddm.models.gamma`. The steps are those of `DDPM` and `DDIM`; their noise has

    Analytic-DPM     beta sigma_s^2 / sigma_t^2 + (alpha_s beta / sigma_t^2)^2 cov_t
    Analytic-DDIM    w^2 + (alpha_s - sqrt(sigma_s^2 - w^2) alpha_t / sigma_t)^2 cov_t

as its variance, beta and w as there; so Analytic-DDIM adds noise at eta = 0 as well. With eta = 1
and without clipping of x_0 the two are one. Into the last time, the noise is at most what moves a
pixel by c of its 255 levels in the mean: c = 2 for Analytic-DPM on linear betas, else 1.

References:
    Bao, Li, Zhu, Zhang, "Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in
    Diffusion Probabilistic Models", 2022, Theorem 1 and Section 3.
"""

from collections.abc import Sequence
from math import pi
from typing import Any

from mmd_ddm.models.gamma import gamma_of
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.ddpm import DDPM

__all__ = ["AnalyticDDIM", "AnalyticDPM"]


def _optimal_std(
    sampler: Sampler, t: float, s: float | None, *, fixed: float, by_x_0: float, levels: float
) -> float:
    """The root of fixed^2 + by_x_0^2 cov_t, bounded by the levels at the last noisy step."""
    if s is None:
        return 0.0
    cov_t = sampler.schedule.rho(t) ** 2 * (1 - gamma_of(sampler.denoiser).at(t))
    std = float((fixed**2 + by_x_0**2 * min(max(cov_t, 0.0), 1.0)) ** 0.5)
    # The mean of |std z| is std sqrt(2 / pi).
    bound = levels / 127.5 * (pi / 2) ** 0.5
    return min(std, bound) if s == sampler.times[-1] else std


class AnalyticDPM(DDPM):
    """DDPM with the optimal variance.

    Args:
        denoiser: as in `Sampler`; with its Gamma.
        times: as in `Sampler`.
        options: of `Sampler`.

    Raises:
        ValueError: a denoiser without Gamma.
    """

    of_betas, of_classes = True, False

    def __init__(self, denoiser: Denoiser, times: Sequence[float], **options: Any) -> None:
        super().__init__(denoiser, times, variance="fixed-small", **options)
        gamma_of(denoiser)  # read it, or say that it is missing, before anything is drawn

    def constants(self) -> list[float]:
        """Gamma."""
        return [*gamma_of(self.denoiser).values]

    def std(self, t: float, s: float | None) -> float:
        """The optimal one, bounded at the last noisy step."""
        (_, sigma_t), (alpha_s, _) = self.schedule(t), self.schedule(s)
        beta = 1 - self.schedule.abar(t) / self.schedule.abar(s)
        levels = 2 if self.schedule.has_linear_betas else 1
        fixed, by_x_0 = super().std(t, s), alpha_s * beta / sigma_t**2
        return _optimal_std(self, t, s, fixed=fixed, by_x_0=by_x_0, levels=levels)


class AnalyticDDIM(DDIM):
    """DDIM with the optimal variance.

    Args:
        denoiser: as in `Sampler`; with its Gamma.
        times: as in `Sampler`.
        eta: as in `DDIM`.
        options: of `Sampler`.

    Raises:
        ValueError: a denoiser without Gamma.
    """

    of_betas, of_classes = True, False

    def __init__(
        self, denoiser: Denoiser, times: Sequence[float], *, eta: float = 0.0, **options: Any
    ) -> None:
        super().__init__(denoiser, times, eta=eta, **options)
        self.stochastic = True
        gamma_of(denoiser)

    def constants(self) -> list[float]:
        """Gamma."""
        return [*gamma_of(self.denoiser).values]

    def std(self, t: float, s: float | None) -> float:
        """The optimal one, bounded at the last noisy step."""
        w, (alpha_s, sigma_s) = self.w(t, s), self.schedule(s)
        kept = max(sigma_s**2 - w**2, 0.0) ** 0.5
        by_x_0 = alpha_s - kept / self.schedule.rho(t)
        return _optimal_std(self, t, s, fixed=w, by_x_0=by_x_0, levels=1)
