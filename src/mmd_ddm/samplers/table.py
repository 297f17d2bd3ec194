r"""A chain as a table of numbers, for whoever walks it without this package.

A deterministic solver that does not clip is linear in what the network says. With m_j the
prediction of x_0 at network call j, every state it asks about, and the image in the end, is

    x_j = c_j x_T + sum_{i < j} w_ji m_i,

whatever the solver remembers or corrects on its way. The numbers depend on the times and the
schedule alone, so they are found by walking the solver itself once, with a network that answers
with unit vectors. In x_0 rather than eps, they are all of the size of 1.
"""

import copy

import torch
from torch import Tensor

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.chain_table import ChainTable
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler

__all__ = ["table_of"]


def table_of(sampler: Sampler) -> ChainTable | None:
    """The table of this sampler; None if it adds noise, clips, or asks for more than eps."""
    if sampler.stochastic or sampler.clip:
        return None
    unit = _UnitNetwork(sampler.schedule, 4 * len(sampler.times) + 16)
    walker = copy.copy(sampler)
    walker._modules = {"denoiser": unit}
    try:
        with torch.no_grad():
            unit.states.append(walker(unit.basis[0]))
    except TypeError:  # of a derivative
        return None
    n = len(unit.times)
    weights = torch.stack(unit.states[1:]).view(n, -1)[:, : n + 1]
    alpha_bars = tuple(map(sampler.schedule.abar, unit.times))
    return ChainTable(tuple(unit.times), alpha_bars, weights)


class _UnitNetwork(Denoiser):
    """Answers call j with the x_0 that is unit vector j + 1, of as many pixels as there are."""

    def __init__(self, schedule: NoiseSchedule, size: int) -> None:
        super().__init__(torch.nn.Identity(), schedule, (1, 1, size))
        self.basis = torch.eye(size, dtype=torch.float64).view(size, 1, 1, 1, size)
        self.states: list[Tensor] = []
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: float | Tensor, condition: None = None) -> Tensor:
        """The eps of that x_0."""
        if isinstance(t, Tensor):
            raise TypeError("of one time, for all")
        self.states.append(x_t)
        self.times.append(t)
        alpha_t, sigma_t = self.schedule(t)
        return (x_t - alpha_t * self.basis[len(self.times)]) / sigma_t
