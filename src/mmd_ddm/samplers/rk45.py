r"""The probability flow itself, by an adaptive Runge-Kutta method: what no number of steps is.

With tan theta = sigma / alpha and u = x / sqrt(alpha^2 + sigma^2), the flow of every process is

    d u / d theta = cos(theta) eps(x_t, t) - sin(theta) x_0(x_t, t),

of the size of 1 throughout. scipy's RK45 solves it from each time to the next, and after the last
to `Schedule.last`, where the network is asked for x_0: `nfe` is its count, one more there, and the
mean over the images. Each image is solved on its own, for the error is controlled over all that is
solved together: so image i does not depend on its batch. It cannot be trained through.

References:
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021,
    Sec. 4.3.
    Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022, App. D
    (theta).
"""

from collections.abc import Sequence
from math import atan, cos, log, sin, tan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk

__all__ = ["RK45"]


class RK45(Sampler):
    """An ODE solver that chooses its own steps; one time is enough, the first.

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        tolerance: of each step's error, relative and absolute.
        options: of `Sampler`; nothing is clipped.
    """

    of_classes = False

    def __init__(
        self,
        denoiser: Denoiser,
        times: Sequence[float],
        *,
        tolerance: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(denoiser, times, **options)
        self.tolerance = tolerance

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """Solve image by image.

        Raises:
            ValueError: a gradient is wanted.
        """
        if torch.is_grad_enabled():
            raise ValueError("rk45 chooses its steps, and cannot be trained through: take heun")
        last, before = self.schedule.last, walk.nfe
        end = last if s is None else s
        x_s = torch.cat([self._solved(one, t, end, walk) for one in x_t.split(1)])
        if s is None:
            walk.nfe += len(x_t) - 1
            x_s = walk.predict(x_s, last)[0]
        walk.nfe = before + round((walk.nfe - before) / len(x_t))
        return x_s

    def _solved(self, x_t: Tensor, t: float, s: float, walk: Walk) -> Tensor:
        from scipy.integrate import solve_ivp

        if t <= s:
            return x_t

        def drift(theta: float, u: np.ndarray) -> np.ndarray:
            now = float(np.clip(self.schedule.time_of(-log(tan(theta))), *self.schedule.bounds))
            x = torch.from_numpy(u).view_as(x_t).to(x_t) * self._size(now)
            x_0, eps = walk.predict(x, now)
            found: np.ndarray = (cos(theta) * eps - sin(theta) * x_0).double().cpu().numpy()
            return found.ravel()

        ends = atan(self.schedule.rho(t)), atan(self.schedule.rho(s))
        began = (x_t / self._size(t)).double().cpu().numpy().ravel()
        u = solve_ivp(drift, ends, began, rtol=self.tolerance, atol=self.tolerance).y[:, -1]
        return torch.from_numpy(u).view_as(x_t).to(x_t) * self._size(s)

    def _size(self, t: float) -> float:
        alpha, sigma = self.schedule(t)
        return float((alpha**2 + sigma**2) ** 0.5)
