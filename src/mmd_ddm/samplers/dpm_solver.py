r"""DPM-Solver, singlestep: Taylor steps in lambda = log(alpha / sigma).

From t to s, with h = lambda_s - lambda_t, and t_i the time where lambda is lambda_t + r_i h:

    DPM-Solver-1    eps' = eps_t                                                          (= DDIM)
    DPM-Solver-2    eps' = eps_t + (eps_1 - eps_t) / (2 r_1),                          r_1 = 1/2
    DPM-Solver-3    eps' = eps_t + g(h) / r_2 (eps_2 - eps_t),              r_1 = 1/3, r_2 = 2/3

where eps_1 is asked at phi(x_t, eps_t, t, t_1), eps_2 at phi(x_t, e, t, t_2) with
e = eps_t + g(r_2 h) r_2 / r_1 (eps_1 - eps_t), and g(h) = 1/h - 1/(e^h - 1), so that the
transfer phi (`ode`) gives the paper's updates term by term.

Steps and network calls: each of the K given times starts one step, which asks the network as often
as its order says. At the data lambda is infinite; so the last step takes its slope towards time 0
(`Schedule.last`), as the authors' solver does, and phi then drops the noise that is left there.
From time 0 itself it is of order 1. K steps of order p thus cost p K calls, less p - 1 where the
last time is 0.
*fast* instead spends exactly K calls: its steps, of orders 3 ... 3 with 2, 1 or both at the end,
start at times of its own, uniform in lambda from the first given time to 0.

Times are the network's and may be fractional. *Type-1*, the default, has log abar linear between
the training times, and so keeps the training grid. *Type-2* (for linear betas) takes alpha and
sigma from the continuous process that the betas discretise,

    log alpha = -u^2 (b_1 - b_0) / 4 - u b_0 / 2,    b_0 = T beta_0,  b_1 = T beta_{T-1},

with u = t / (T-1). The data lie at time 0 itself, where lambda is infinite; so its last step aims
at u = 1 / T.

diffusers' ``DPMSolverSinglestepScheduler`` rounds its times and has another grid; hence ours.

References:
    Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around
    10 Steps", 2022, Algorithms 1 to 4 and Appendix D.
"""

from collections.abc import Sequence
from math import exp, expm1
from typing import Any

import numpy as np
from torch import Tensor

from mmd_ddm.maths.schedules import NoiseSchedule, Schedule
from mmd_ddm.maths.times import check_times, log_snr_times
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.ode import SlopeSampler

__all__ = ["CONVERSIONS", "ContinuousSchedule", "DPMSolver", "DPMSolverFast", "fast_orders"]

CONVERSIONS = ("type-1", "type-2")


class ContinuousSchedule(NoiseSchedule):
    """The continuous process of linear betas: alpha and sigma of the Type-2 conversion.

    Args:
        discrete: the schedule of the training.

    Raises:
        ValueError: betas that are not linear.
    """

    def __init__(self, discrete: Schedule) -> None:
        if not (isinstance(discrete, NoiseSchedule) and discrete.has_linear_betas):
            raise ValueError("Type-2 times are for linear betas; this model has others")
        super().__init__(discrete.alpha_bar)
        self._b_0, self._b_1 = len(discrete) * discrete.betas[[0, -1]]

    def abar(self, t: float | None) -> float:
        """abar_t as a Python float; 1 for ``t = None`` and at time 0."""
        u = (t or 0) / (len(self) - 1)
        return exp(-(u**2) * (self._b_1 - self._b_0) / 2 - u * self._b_0)

    def time_of(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t that has this lambda_t."""
        # The root of the quadratic in u that -log abar is, without cancellation.
        fall = np.logaddexp(0, -2 * np.asarray(log_snr))
        root = np.sqrt(self._b_0**2 + 2 * (self._b_1 - self._b_0) * fall)
        return np.asarray((len(self) - 1) * 2 * fall / (root + self._b_0))


def fast_orders(nfe: int) -> list[int]:
    """The orders of the steps that together make ``nfe`` network calls (Appendix D.3)."""
    threes, left = divmod(nfe, 3)
    if left == 0:
        return [3] * (threes - 1) + [2, 1]
    return [3] * threes + [left]


def _g(h: float) -> float:
    """1/h - 1/(e^h - 1): 1/2 for small steps, 0 for infinite ones."""
    return 1 / h - 1 / expm1(h)


class DPMSolver(SlopeSampler):
    """Singlestep DPM-Solver of one order.

    Args:
        denoiser: as in `Sampler`.
        times: where the steps start.
        order: 1, 2 or 3.
        conversion: of times, one of `CONVERSIONS`.
        options: of `Sampler`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        times: Sequence[float],
        *,
        order: int,
        conversion: str = "type-1",
        **options: Any,
    ) -> None:
        super().__init__(denoiser, times, **options)
        if conversion not in CONVERSIONS:
            raise ValueError(
                f"unknown conversion {conversion!r}; choose one of {', '.join(CONVERSIONS)}"
            )
        self.end = self.schedule.last  # lambda there is finite, and the last that is aimed at
        if conversion == "type-2":
            self.schedule = ContinuousSchedule(self.schedule)
            self.end = (len(self.schedule) - 1) / len(self.schedule)
        if order not in (1, 2, 3):
            raise ValueError(f"DPM-Solver has orders 1, 2 and 3; got {order}")
        self.orders = dict.fromkeys(self.times, order)

    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """The slope of the order at t."""
        eps = walk.eps(x_t, t)
        aim = max(s or 0, self.end)
        order = self.orders[t] if aim < t else 1
        if order == 1:
            return eps
        schedule = self.schedule
        start = schedule.log_snr(t)
        h = schedule.log_snr(aim) - start
        r_1 = 1 / order
        t_1 = float(schedule.time_of(start + r_1 * h))
        eps_1 = walk.eps(self.phi(x_t, eps, t, t_1), t_1)
        if order == 2:
            return eps_1
        t_2 = float(schedule.time_of(start + 2 * r_1 * h))
        towards = eps + 2 * _g(2 * r_1 * h) * (eps_1 - eps)
        eps_2 = walk.eps(self.phi(x_t, towards, t, t_2), t_2)
        return eps + _g(h) / (2 * r_1) * (eps_2 - eps)


class DPMSolverFast(DPMSolver):
    """The paper's DPM-Solver-fast: as many network calls as there are times.

    Args:
        denoiser: as in `Sampler`.
        times: the first is where the walk starts; their number is the number of network calls.
        options: of `DPMSolver`, but for the order.
    """

    of_betas = True

    def __init__(self, denoiser: Denoiser, times: Sequence[float], **options: Any) -> None:
        super().__init__(denoiser, times, order=3, **options)
        orders = fast_orders(len(self.times))
        start = max(self.times[0], self.end)
        edges = log_snr_times(self.schedule, start, self.end, len(orders) + 1)
        self.times = check_times(edges[:-1].tolist(), self.schedule)
        self.orders = dict(zip(self.times, orders, strict=True))
