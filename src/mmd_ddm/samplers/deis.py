r"""DEIS (tAB): the polynomial in t through the last eps, integrated exactly.

The slope over the step is the mean of that polynomial in rho,

    eps' = sum_j w_j eps_{t_j},   w_j = 1 / (rho_s - rho_t) int_{rho_t}^{rho_s} l_j(t(rho)) d rho,

with l_j the Lagrange basis on the times t_j of the newest eps, at most ``order`` of them (up to
4, the paper's tAB3). The weights depend on the times alone; the data are the time -1 of betas, and
0 of other processes. K steps cost K network calls.

diffusers' ``DEISMultistepScheduler`` takes polynomials in log rho, which are infinite at the data,
so that it stops one noise level short; and it accepts no list of times. Hence ours.

References:
    Zhang, Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", 2023,
    Eqs. 12 to 15 and Table 2 (tAB-DEIS).
"""

from collections.abc import Sequence

import numpy as np

from mmd_ddm.maths.schedules import Schedule
from mmd_ddm.samplers.ode import MultistepSampler, lagrange

__all__ = ["DEIS", "slope_weights"]


def slope_weights(schedule: Schedule, known: Sequence[float], s: float | None) -> list[float]:
    """The weights w_j, by Gauss-Legendre quadrature in rho; they sum to 1.

    Args:
        schedule: gives rho.
        known: the times t_j, the newest (where the step starts) first.
        s: where the step ends; None is the data.
    """
    rho_t, rho_s = schedule.rho(known[0]), schedule.rho(s)
    nodes, mass = np.polynomial.legendre.leggauss(64)
    rho = rho_t + (rho_s - rho_t) * (nodes + 1) / 2
    return lagrange(known, schedule.time_of(-np.log(rho)), mass)


class DEIS(MultistepSampler):
    """tAB-DEIS, started by the lower orders."""

    highest = 4

    def weights(self, known: Sequence[float], s: float | None) -> list[float]:
        """`slope_weights`."""
        return slope_weights(self.schedule, known, s)
