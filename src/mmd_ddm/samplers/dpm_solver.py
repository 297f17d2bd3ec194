r"""DPM-Solver, singlestep: Taylor steps in lambda = log(alpha / sigma).

From t to s, with h = lambda_s - lambda_t, and t_i the time where lambda is lambda_t + r_i h:

    DPM-Solver-1    eps' = eps_t                                                          (= DDIM)
    DPM-Solver-2    eps' = eps_t + (eps_1 - eps_t) / (2 r_1),                          r_1 = 1/2
    DPM-Solver-3    eps' = eps_t + g(h) / r_2 (eps_2 - eps_t),              r_1 = 1/3, r_2 = 2/3

where eps_1 is asked at phi(x_t, eps_t, t, t_1), eps_2 at phi(x_t, e, t, t_2) with
e = eps_t + g(r_2 h) r_2 / r_1 (eps_1 - eps_t), and g(h) = 1/h - 1/(e^h - 1), so that the
transfer phi (`ode`) gives the paper's updates term by term.

Steps and network calls: each of the K given times starts one step, which asks the network as often
as its order says. At the data lambda is infinite; so the last step takes its slope towards time 0,
as the authors' solver does, and phi then drops the noise that is left there. From time 0 itself
it is of order 1. K steps of order p thus cost p K calls, less p - 1 where the last time is 0.
*fast* instead spends exactly K calls: its steps, of orders 3 ... 3 with 2, 1 or both at the end,
start at times of its own, uniform in lambda from the first given time to 0.

Times are the network's and may be fractional, log abar being linear between the training times:
the authors' Type-1 conversion, which keeps the training grid. Their Type-2, which takes the
network's times from a continuous schedule that the network was not trained on, is not offered.

diffusers' ``DPMSolverSinglestepScheduler`` rounds its times and has another grid; hence ours.

References:
    Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around
    10 Steps", 2022, Algorithms 1 to 4 and Appendix D.
"""

from collections.abc import Sequence
from math import expm1
from typing import Any

from torch import Tensor

from mmd_ddm.denoiser import Denoiser
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.ode import SlopeSampler
from mmd_ddm.schedules import check_times, log_snr_times

__all__ = ["DPMSolver", "DPMSolverFast", "fast_orders"]


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
        options: of `Sampler`.
    """

    def __init__(
        self, denoiser: Denoiser, times: Sequence[float], *, order: int, **options: Any
    ) -> None:
        super().__init__(denoiser, times, **options)
        if order not in (1, 2, 3):
            raise ValueError(f"DPM-Solver has orders 1, 2 and 3; got {order}")
        self.orders = dict.fromkeys(self.times, order)

    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """The slope of the order at t."""
        eps = walk.eps(x_t, t)
        aim = s or 0
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
        options: of `Sampler`.
    """

    def __init__(self, denoiser: Denoiser, times: Sequence[float], **options: Any) -> None:
        super().__init__(denoiser, times, order=3, **options)
        orders = fast_orders(len(self.times))
        schedule = denoiser.schedule
        edges = log_snr_times(schedule, self.times[0], 0, len(orders) + 1)
        self.times = check_times(edges[:-1].tolist(), len(schedule))
        self.orders = dict(zip(self.times, orders, strict=True))
