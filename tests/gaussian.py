"""Gaussian data, for which eps and the probability-flow ODE are known in closed form."""

from itertools import pairwise

import torch

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Walk

SHAPE = (1, 2, 2)
VARIANCE = 0.25


def fine_schedule():
    """The usual linear betas in steps 100 times as small: smooth enough to show orders."""
    return NoiseSchedule.linear(100_000, 1e-6, 2e-4)


class GaussianDenoiser(Denoiser):
    """eps of data that are N(0, VARIANCE), times a weight of 1 to differentiate by."""

    def __init__(self, schedule=None):
        super().__init__(torch.nn.Identity(), schedule or NoiseSchedule.linear(), shape=SHAPE)
        self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x_t, t, condition=None):
        if isinstance(t, torch.Tensor):  # to differentiate by
            alpha_t, sigma_t = self.coefficients(t.expand(len(x_t)))
        else:
            alpha_t, sigma_t = self.schedule(t)
        return self.weight * x_t * sigma_t / (alpha_t**2 * VARIANCE + sigma_t**2)

    def flow(self, x_t, t, s):
        """Where the exact ODE carries x_t; s = None is the data."""
        spread = [alpha**2 * VARIANCE + sigma**2 for alpha, sigma in map(self.schedule, (t, s))]
        return x_t * (spread[1] / spread[0]) ** 0.5


class PerTime(GaussianDenoiser):
    """The same with a weight for each of some times, and for all in between the nearest one's."""

    def __init__(self, times, schedule=None):
        super().__init__(schedule)
        self.times = torch.tensor(times, dtype=torch.float64)
        self.network = torch.nn.Module()
        self.network.weights = torch.nn.Parameter(torch.ones(len(times), dtype=torch.float64))

    def forward(self, x_t, t, condition=None):
        told = torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))
        nearest = (told[:, None] - self.times).abs().argmin(1)
        exact = super().forward(x_t, t)
        return (self.network.weights[nearest][:, None, None, None] * exact).to(x_t)


class TimeDenoiser(Denoiser):
    """eps that depends on the time alone."""

    def __init__(self, function, schedule=None):
        super().__init__(torch.nn.Identity(), schedule or NoiseSchedule.linear(), shape=SHAPE)
        self.function = function

    def forward(self, x_t, t, condition=None):
        return torch.full_like(x_t, self.function(t))


def noise(n=2, seed=0):
    return torch.randn(
        n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def march(sampler, x_t):
    """The walk up to the last of the times: without the step to the data."""
    walk = Walk(sampler.denoiser, recompute=False)
    for t, s in pairwise(sampler.times):
        x_t = sampler.step(x_t, t, s, walk, None)
    return x_t
