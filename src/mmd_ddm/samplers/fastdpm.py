r"""FastDPM: a short process chosen by its steps or by its variances.

The update is DDIM's with eta = kappa. **STEP** chooses the times and reads the variances off the
schedule, so it is `DDIM` itself. **VAR** chooses K variances

    linear       eta_i = beta_0 + (x - beta_0) i / (K - 1)
    quadratic    eta_i = beta_0 (1 + i x)^2,                         i = 0 ... K-1

with x found by bisection such that prod_i (1 - eta_i) = abar_{T-1}, and visits the fractional
times where the schedule has the products gbar_i = prod_{j <= i} (1 - eta_j). The given times count
only by their number. The paper finds the times with Gamma functions, which is for linear betas;
here log abar is linear between the training times, which is for any and differs by less than
0.03 of a time there. K steps cost K network calls.

References:
    Kong, Ping, "On Fast Sampling of Diffusion Probabilistic Models", 2021, Sections 3 and 4.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmd_ddm.maths.schedules import Schedule
from mmd_ddm.maths.times import check_times
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.ddim import DDIM

__all__ = ["VARIANCES", "FastDPMVar", "variance_times"]

VARIANCES = ("linear", "quadratic")


def _etas(rule: str, beta_0: float, x: float, steps: int) -> np.ndarray:
    i = np.arange(steps)
    if rule == "linear":
        return beta_0 + (x - beta_0) * i / (steps - 1)
    return beta_0 * (1 + i * x) ** 2


def variance_times(schedule: Schedule, rule: str, steps: int) -> list[float]:
    """The K fractional times of VAR, noisiest first.

    Raises:
        ValueError: an unknown rule, or one step only (its variance would be beta_0).
    """
    if rule not in VARIANCES:
        raise ValueError(f"unknown variances {rule!r}; choose one of {', '.join(VARIANCES)}")
    if steps < 2:
        raise ValueError(f"FastDPM-VAR needs at least 2 steps; got {steps}")
    last = len(schedule) - 1
    beta_0, target = 1 - schedule.abar(0), schedule.abar(last)
    low, high = 0.0, 1.0 if rule == "linear" else (beta_0**-0.5 - 1) / (steps - 1)
    for _ in range(100):
        x = (low + high) / 2
        too_noisy = np.prod(1 - _etas(rule, beta_0, x, steps)) < target
        low, high = (low, x) if too_noisy else (x, high)
    gbar = np.cumprod(1 - _etas(rule, beta_0, x, steps))
    times = schedule.time_of(0.5 * np.log(gbar / (1 - gbar)))
    return [float(t) for t in np.clip(times, 0, last).round(9)[::-1]]


class FastDPMVar(DDIM):
    """FastDPM-VAR.

    Args:
        denoiser: as in `Sampler`.
        times: only their number is used.
        variances: one of `VARIANCES`.
        options: of `DDIM`; ``eta`` is the paper's kappa.
    """

    of_betas = True

    def __init__(
        self,
        denoiser: Denoiser,
        times: Sequence[float],
        *,
        variances: str = "quadratic",
        eta: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(denoiser, times, eta=eta, **options)
        chosen = variance_times(self.schedule, variances, len(times))
        self.times = check_times(chosen, self.schedule)
