r"""UniPC, as diffusers has it, on our loop and our times.

Each network call first corrects the step that led to it, then predicts the next, both from data
predictions at the last times (up to order 3, B(h) = e^h - 1), lower orders at both ends. K steps
cost K network calls.

diffusers' ``UniPCMultistepScheduler`` is right and differentiable; its update depends on the noise
levels sigma_t / alpha_t alone. What it lacks is the choice of times. So for each walk a fresh one
is built (it keeps the graph of its last walk), its noise levels are set to those of the given
times, in float64, with 0 for the data, and it is handed one prediction a step: eps, or the clamped
x_0 where the sampler clips. Its ``bh1`` is not offered: it is not a number at the data.

References:
    Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
    Models", 2023, Algorithms 7 and 8 (data prediction).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk, choose_order

__all__ = ["UniPC"]


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
        eps = walk.eps(x_t, t)
        prediction = self.x_0(x_t, eps, t) if self.clip else eps
        x_s: Tensor = walk.history[0].step(prediction, t, x_t, return_dict=False)[0]
        return x_s

    def _scheduler(self) -> Any:
        from diffusers import UniPCMultistepScheduler

        schedule = self.schedule
        scheduler: Any = UniPCMultistepScheduler(
            num_train_timesteps=len(schedule),
            prediction_type="sample" if self.clip else "epsilon",
            solver_order=self.order,
        )
        scheduler.num_inference_steps = len(self.times)
        levels = [schedule.rho(t) for t in (*self.times, None)]
        scheduler.sigmas = torch.tensor(levels, dtype=torch.float64)
        scheduler.timesteps = torch.tensor(self.times, dtype=torch.float64)
        scheduler.set_begin_index(0)
        return scheduler
