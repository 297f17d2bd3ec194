r"""UniPC, as diffusers has it, on our loop and our times.

Each network call first corrects the step that led to it, then predicts the next, both from data
predictions at the last times (up to order 3, B(h) = e^h - 1), lower orders at both ends. K steps
cost K network calls.

diffusers' ``UniPCMultistepScheduler`` is right and differentiable; its update depends on the noise
levels sigma_t / alpha_t alone. What it lacks is the choice of times. So for each walk a fresh one
is built (it keeps the graph of its last walk), its noise levels are set to those of the given
times, in float64, with 0 for the data, and it is handed one prediction of x_0 a step. It walks in
x_t / sqrt(alpha_t^2 + sigma_t^2), where all processes of the same levels are one. Its ``bh1`` is
not offered: it is not a number at the data.

References:
    Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
    Models", 2023, Algorithms 7 and 8 (data prediction).
"""

from collections.abc import Sequence
from math import hypot
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk, choose_order

__all__ = ["UniPC"]

_NO_IMAGE = 1e150  # stands for an infinite level, whose square is a number


class UniPC(Sampler):
    """UniPC with B_2(h).

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        order: 1, 2 or 3; 0 is `choose_order`'s.
        options: of `Sampler`.
    """

    highest = 3

    def __init__(
        self, denoiser: Denoiser, times: Sequence[float], *, order: int = 0, **options: Any
    ) -> None:
        super().__init__(denoiser, times, **options)
        self.order = choose_order(self, order, self.highest)

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """The scheduler's step; where it is, it knows by its own count."""
        if not walk.history:
            walk.history.append(self._scheduler())
        x_0 = self.clamped(walk.predict(x_t, t)[0])
        here, there = (hypot(*self.schedule(time)) for time in (t, s))
        x_s: Tensor = walk.history[0].step(x_0, t, x_t / here, return_dict=False)[0]
        return x_s * there

    def _scheduler(self) -> Any:
        from diffusers import UniPCMultistepScheduler

        schedule = self.schedule
        scheduler: Any = UniPCMultistepScheduler(
            num_train_timesteps=len(schedule),
            prediction_type="sample",
            solver_order=self.order,
        )
        scheduler.num_inference_steps = len(self.times)
        levels = [min(schedule.rho(t), _NO_IMAGE) for t in (*self.times, None)]
        scheduler.sigmas = torch.tensor(levels, dtype=torch.float64)
        scheduler.timesteps = torch.tensor(self.times, dtype=torch.float64)
        scheduler.set_begin_index(0)
        return scheduler
