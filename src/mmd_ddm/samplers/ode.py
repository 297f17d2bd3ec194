r"""Solvers of the probability-flow ODE, in the coordinates where it is simplest.

With rho_t = sigma_t / alpha_t, deterministic sampling follows  d(x / alpha) / d rho = eps(x_t, t),
so every solver that keeps an eps-estimate constant over a step ends in the same *transfer*

    phi(x_t, eps', t, s) = alpha_s x_0(x_t, eps', t) + sigma_s eps',

which is DDIM's step, DPM-Solver-1 and PNDM's Eq. 11 at once. The families differ only in eps',
the *slope*: a mean of eps over the step from t to s, of which each has its own estimate.

``clip`` clamps the x_0 inside phi. As in `DDIM`, eps' is not recomputed from it. Where nothing of
the image is in x_t (alpha_t = 0: the first time of a flow, or of zero terminal SNR), rho is
infinite and x_0 does not follow from eps'; the step from there is DDIM's, with both as predicted.

References:
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021.
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2020, Eq. 14.
    Liu, Ren, Lin, Zhao, "Pseudo Numerical Methods for Diffusion Models", 2022, Eq. 11.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk, choose_order

__all__ = ["Heun", "MultistepSampler", "SlopeSampler", "combine", "lagrange"]


def combine(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """The weighted sum of as many tensors as there are weights."""
    first, *rest = (w * value for w, value in zip(weights, values, strict=True))
    return sum(rest, start=first)


def lagrange(known: Sequence[float], nodes: np.ndarray, mass: np.ndarray) -> list[float]:
    """The weights of values at known times in the mean of the polynomial through them.

    Args:
        known: times, the newest first.
        nodes: times of a quadrature of that mean, of shape [m].
        mass: its weights, of sum 2, of shape [m].
    """
    weights = []
    for j, t_j in enumerate(known):
        others = [t for i, t in enumerate(known) if i != j]
        basis = np.prod([(nodes - t) / (t_j - t) for t in others], axis=0)
        weights.append(float(np.sum(basis * mass) / 2))
    return weights


class SlopeSampler(Sampler):
    """A sampler whose step is the transfer by some slope."""

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """Transfer by the family's slope."""
        if self.schedule(t)[0]:
            return self.phi(x_t, self.slope(x_t, t, s, walk), t, s)
        x_0, eps = walk.predict(x_t, t)
        self.remember(eps, t, walk)
        alpha_s, sigma_s = self.schedule(s)
        return alpha_s * self.clamped(x_0) + sigma_s * eps

    @abstractmethod
    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """The family's estimate of eps over the step from t to s."""

    def remember(self, eps: Tensor, t: float, walk: Walk) -> None:
        """Keep what later steps need, if any: of one-step rules, nothing."""

    def phi(self, x_t: Tensor, eps: Tensor, t: float, s: float | None) -> Tensor:
        """The transfer from t to s."""
        alpha_s, sigma_s = self.schedule(s)
        return alpha_s * self.x_0(x_t, eps, t) + sigma_s * eps


class MultistepSampler(SlopeSampler):
    """A sampler whose slope is a weighted sum of the newest eps; the first steps know fewer.

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        order: how many eps, at most ``highest``; 0 is `choose_order`'s.
        options: of `Sampler`.
    """

    highest: int

    def __init__(
        self, denoiser: Denoiser, times: Sequence[float], *, order: int = 0, **options: Any
    ) -> None:
        super().__init__(denoiser, times, **options)
        self.order = choose_order(self, order, self.highest)

    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """The weighted sum of the newest ``order`` eps."""
        self.remember(walk.eps(x_t, t), t, walk)
        known, eps = zip(*walk.history, strict=True)
        return combine(self.weights(known, s), eps)

    def remember(self, eps: Tensor, t: float, walk: Walk) -> None:
        """The newest ``order`` eps, and their times."""
        walk.history = [(t, eps), *walk.history][: self.order]

    @abstractmethod
    def weights(self, known: Sequence[float], s: float | None) -> list[float]:
        """The weights of eps at these times, the newest first, on the way from the first to s."""


class Heun(SlopeSampler):
    """Second order: the mean of eps here and of eps where that alone would lead.

    The trapezoid rule in rho (EDM, Algorithm 1, without noise); the step to the data is Euler's,
    that is DDIM's. K steps cost 2K - 1 network calls.

    diffusers' ``HeunDiscreteScheduler`` is the same rule with every time listed twice.

    References:
        Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
        Models", 2022, Algorithm 1.
    """

    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """(eps_t + eps_s) / 2."""
        eps = walk.eps(x_t, t)
        if s is None:
            return eps
        return combine((0.5, 0.5), (eps, walk.eps(self.phi(x_t, eps, t, s), s)))
