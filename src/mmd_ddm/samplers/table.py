r"""A chain as a table of numbers, for whoever walks it without this package.

A deterministic solver that does not clip is linear in what the network says. With m_j the
prediction of x_0 at network call j, every state it asks about, and the image in the end, is

    x_j = c_j x_T + sum_{i < j} w_ji m_i,

whatever the solver remembers or corrects on its way. The numbers depend on the times and the
schedule alone, so they are found by walking the solver itself once, with a network that answers
with unit vectors. In x_0 rather than eps, they are all of the size of 1.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.models.chain_table import ChainTable
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler

__all__ = ["linear_weights", "table_of"]


def table_of(sampler: Sampler) -> ChainTable | None:
    """The table of this sampler; None if it adds noise, clips, or is not linear."""
    if sampler.stochastic or sampler.clip:
        return None
    x_T = torch.linspace(-2, 2, 8, dtype=torch.float64).view(1, 1, 1, 8)
    try:
        times, weights = linear_weights(sampler)
        _, states = _walk(sampler, x_T, lambda j, x_t: torch.cos(x_t))
    except Exception:  # a sampler may ask a network for anything else than eps
        return None
    walked = torch.cat(states).flatten(1)
    known = torch.cat([walked[:1], walked[:-1].cos()])
    if not torch.allclose(weights @ known, walked[1:]):
        return None
    return ChainTable(tuple(times), tuple(map(sampler.schedule.abar, times)), weights)


def linear_weights(sampler: Sampler) -> tuple[list[float], Float[Tensor, "n n+1"]]:
    """The times and weights of a table, of a sampler that is known to have one."""
    size = 4 * len(sampler.times) + 16  # more than there are calls
    basis = torch.eye(size, dtype=torch.float64).view(size, 1, 1, 1, size)
    times, states = _walk(sampler, basis[0], lambda j, x_t: basis[j])
    return times, torch.cat(states[1:]).view(-1, size)[:, : len(times) + 1]


def _walk(
    sampler: Sampler, x_T: Tensor, answer: Callable[[int, Tensor], Tensor]
) -> tuple[list[float], list[Tensor]]:
    """The times at which this sampler asks a network of such x_0, and the states, with the last.

    Args:
        sampler: of another network.
        x_T: the state that it begins with.
        answer: x_0 by the number of the call, from 1, and the state.
    """
    times: list[float] = []
    states: list[Tensor] = []

    class Network(Denoiser):
        prediction = "sample"

        def forward(
            self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None
        ) -> Tensor:
            times.append(float(t))
            states.append(x_t)
            return answer(len(states), x_t)

    walker = copy.copy(sampler)  # which shares all but the network
    walker._modules = {"denoiser": Network(nn.Identity(), sampler.schedule, (1, 1, x_T.numel()))}
    with torch.no_grad():
        states.append(walker(x_T / sampler.schedule.start(sampler.times[0])))
    return times, states
