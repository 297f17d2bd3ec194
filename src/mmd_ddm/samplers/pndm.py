r"""PNDM: Adams-Bashforth extrapolation of eps over the steps already taken.

With e_0 = eps(x_t, t) and e_1, e_2, e_3 those of the steps before, the slope is

    S-PNDM  (3 e_0 - e_1) / 2                          first step: (eps(x_t, t) + eps(x', s)) / 2
    F-PNDM  (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24    first three steps: pseudo Runge-Kutta
    iPNDM   as F-PNDM, but started by the rules of orders 1, 2 and 3, without further calls

S-PNDM and F-PNDM have the weights of equal steps whatever the times are. iPNDM has those of the
actual steps (iPNDM-v): the mean over the step, in t, of the polynomial in t through the newest
eps, with the data at the time -1 of betas, 0 of other processes. On equal times they are the
weights above. In t, not in rho, as PNDM's steps are equal in t, and as it is nearer to a walk of
100 steps: on the bundled model at 5 and 10 midpoint times, 0.15 and 0.11 of root mean square off
with order 2, against 0.19 and 0.13 in rho. With a mean in t for one in rho, all three converge
with order 2. The transfer (`ode`) is exact.

diffusers' ``PNDMScheduler`` is F-PNDM on its own ``leading`` times, with whole mid-points; it has
no S-PNDM; its ``IPNDMScheduler`` walks a cosine schedule of its own instead of the model's. Hence
the three of them here, on any times.

References:
    Liu, Ren, Lin, Zhao, "Pseudo Numerical Methods for Diffusion Models on Manifolds", 2022,
    Eqs. 9 to 14 and Algorithm 2.
    Zhang, Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023 (iPNDM).
    Zhou, Chen, Wang, Chen, "Fast ODE-based Sampling for Diffusion Models in Around 5 Steps", 2024
    (iPNDM-v: weights of the actual steps).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.ode import MultistepSampler, SlopeSampler, combine, lagrange

__all__ = ["ADAMS_BASHFORTH", "FPNDM", "IPNDM", "SPNDM", "step_weights"]

# The weights of equal steps by how many eps are known, the newest first.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def step_weights(known: Sequence[float], s: float | None, data: float = -1) -> list[float]:
    """The Adams-Bashforth weights of steps of any length; they sum to 1.

    Args:
        known: the times of the eps, the newest (where the step starts) first.
        s: where the step ends; None is the data.
        data: the time of the data.
    """
    nodes, mass = np.polynomial.legendre.leggauss(2)  # exact for cubics
    end = data if s is None else s
    return lagrange(known, known[0] + (end - known[0]) * (nodes + 1) / 2, mass)


class IPNDM(MultistepSampler):
    """iPNDM-v, started by the lower orders. K steps cost K network calls."""

    highest = 4

    def weights(self, known: Sequence[float], s: float | None) -> list[float]:
        """`step_weights`."""
        return step_weights(known, s, self.schedule.data)


class _WarmedUp(SlopeSampler):
    """Starts with a one-step rule of the full order instead of the lower orders.

    Attributes:
        order: of the rule.

    Raises:
        ValueError: fewer times than the start needs.
    """

    of_betas = True
    order: int

    def __init__(self, denoiser: Denoiser, times: Sequence[float], **options: Any) -> None:
        super().__init__(denoiser, times, **options)
        if len(self.times) < self.order:
            name = type(self).__name__.replace("PNDM", "-PNDM")
            raise ValueError(f"{name} needs at least {self.order} steps; got {len(self.times)}")

    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """The one-step rule until enough eps are known."""
        eps = walk.eps(x_t, t)
        self.remember(eps, t, walk)
        if len(walk.history) == self.order or s is None:
            return combine(ADAMS_BASHFORTH[len(walk.history) - 1], walk.history)
        return self.start(x_t, eps, t, s, walk)

    def remember(self, eps: Tensor, t: float, walk: Walk) -> None:
        """The newest ``order`` eps."""
        walk.history = [eps, *walk.history][: self.order]

    @abstractmethod
    def start(self, x_t: Tensor, eps: Tensor, t: float, s: float, walk: Walk) -> Tensor:
        """The slope of one of the first steps."""


class SPNDM(_WarmedUp):
    """Second order, from the pseudo improved Euler step. K steps cost K + 1 network calls."""

    order = 2

    def start(self, x_t: Tensor, eps: Tensor, t: float, s: float, walk: Walk) -> Tensor:
        """Eq. 14: the mean of both ends."""
        return combine((0.5, 0.5), (eps, walk.eps(self.phi(x_t, eps, t, s), s)))


class FPNDM(_WarmedUp):
    """Fourth order, from three pseudo Runge-Kutta steps. K steps cost K + 9 network calls."""

    order = 4

    def start(self, x_t: Tensor, eps: Tensor, t: float, s: float, walk: Walk) -> Tensor:
        """Eq. 13: classical Runge-Kutta, with the half-way time (t + s) / 2."""
        half = (t + s) / 2
        eps_2 = walk.eps(self.phi(x_t, eps, t, half), half)
        eps_3 = walk.eps(self.phi(x_t, eps_2, t, half), half)
        eps_4 = walk.eps(self.phi(x_t, eps_3, t, s), s)
        return combine((1 / 6, 1 / 3, 1 / 3, 1 / 6), (eps, eps_2, eps_3, eps_4))
