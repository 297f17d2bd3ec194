r"""DPM-Solver++, multistep: lambda = log(alpha / sigma) is the clock, x_0 is what is extrapolated.

From t to s, with h = lambda_s - lambda_t, the step is DDIM's with a mean x' of x_0 over the step,

    x_s = sigma_s / sigma_t x_t + (alpha_s - alpha_t sigma_s / sigma_t) x'.

With m_0, m_1, m_2 the newest predictions of x_0, the last of them made at lambda_t, and r_0 h and
r_1 h the distances in lambda between them,

    order 1    x' = m_0
    2M         x' = m_0 + (m_0 - m_1) / (2 r_0)
    3M         x' = m_0 + a A + c B,    a = 1/(1 - e^-h) - 1/h,    c = 1/(1 - e^-h) - 2 a / h,

where m_0 + A u + B u^2 passes through the three at u = 0, -r_0, -r_0 - r_1, and a and c are the
means of u and u^2 from 0 to 1 with density e^(hu). Both start with the lower orders; 3M ends with
them too, and every step to the data is of order 1. K steps cost K network calls.

2M is diffusers' ``DPMSolverMultistepScheduler`` to its float32 rounding. Its 3M, as the authors'
code, has B where 2B belongs, and is of order 2 in truth; here it is of order 3.

References:
    Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    2022, Algorithm 2 (2M) and Proposition 4.1.
"""

from collections.abc import Sequence
from math import exp
from typing import Any

from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk

__all__ = ["DPMSolverPP"]


class DPMSolverPP(Sampler):
    """DPM-Solver++ 2M or 3M.

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        order: 2 or 3.
        options: of `Sampler`; ``clip`` clamps every prediction of x_0 before it is remembered.
    """

    def __init__(
        self, denoiser: Denoiser, times: Sequence[float], *, order: int, **options: Any
    ) -> None:
        super().__init__(denoiser, times, **options)
        if order not in (2, 3):
            raise ValueError(f"multistep DPM-Solver++ has orders 2 and 3; got {order}")
        self.order = order

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """One step of the highest order that the walk allows."""
        x_0 = self.clamped(walk.predict(x_t, t)[0])
        walk.history = [(t, x_0), *walk.history][: self.order]
        schedule = self.schedule
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        ratio = sigma_s / sigma_t
        return ratio * x_t + (alpha_s - alpha_t * ratio) * self._mean(walk.history, s)

    def _mean(self, known: Sequence[tuple[float, Tensor]], s: float | None) -> Tensor:
        """x', the mean of x_0 over the step."""
        times, older = [t for t, _ in known], [m for _, m in known]
        m_0 = older.pop(0)
        left = len(self.times) - self.times.index(times[0])
        order = min(len(known), left)
        if s is None or order == 1:
            return m_0
        clock = [self.schedule.log_snr(t) for t in (s, *times)]
        h = clock[0] - clock[1]
        r_0 = (clock[1] - clock[2]) / h
        first = (m_0 - older[0]) / r_0
        if order == 2:
            return m_0 + first / 2
        r_1 = (clock[2] - clock[3]) / h
        bend = (first - (older[0] - older[1]) / r_1) / (r_0 + r_1)
        a = 1 / (1 - exp(-h)) - 1 / h
        c = 1 / (1 - exp(-h)) - 2 * a / h
        return m_0 + a * (first + r_0 * bend) + c * bend
