r"""A chain as numbers, for whoever walks it without this package.

A deterministic solver is linear in what the network says, but for the clamping of x_0 where it
clips. With r_j the j-th thing it asks for, a prediction of x_0 at some time or a clamped x_0,
every state that it asks about, and the image in the end, is

    x_j = c_j x_T + sum_{i < j} w_ji r_i,

whatever the solver remembers or corrects on its way. The numbers depend on the times and the
schedule alone, so they are found by walking the solver itself once, with a network (and a clamp)
that answers with unit vectors. In x_0 rather than eps, they are all of the size of 1. Without
clipping they are a `ChainTable`.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.models.chain_table import ChainTable
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.ode import combine

__all__ = ["Question", "linear_weights", "questions_of", "table_of"]

_Answer = Callable[[float, Tensor], Tensor]


class Question(NamedTuple):
    """What a chain asks for, and of what.

    Attributes:
        time: of a network call, whose answer is x_0; None is a clamp to [-1, 1], or the end.
        weights: of x_T, then of the answers so far, in the state that it is asked of.
    """

    time: float | None
    weights: tuple[float, ...]


def table_of(sampler: Sampler) -> ChainTable | None:
    """The table of this sampler; None if it adds noise, clips, is guided, or is not linear."""
    questions = None if sampler.clip or sampler.guidance != 1 else questions_of(sampler)
    if questions is None:
        return None
    times, weights = _table(questions)
    return ChainTable(tuple(times), tuple(map(sampler.schedule.abar, times)), weights)


def linear_weights(sampler: Sampler) -> tuple[list[float], Float[Tensor, "n n+1"]]:
    """The times and weights of a table, of a sampler that is known to have one."""
    return _table(_questions(sampler))


def _table(questions: list[Question]) -> tuple[list[float], Float[Tensor, "n n+1"]]:
    n = len(questions) - 1
    rows = [[*one.weights, *[0.0] * (n + 1 - len(one.weights))] for one in questions[1:]]
    times = [one.time for one in questions if one.time is not None]
    return times, torch.tensor(rows, dtype=torch.float64)


def questions_of(sampler: Sampler) -> list[Question] | None:
    """All that this sampler asks for, then the image; None if it adds noise, or is not linear.

    Guidance is left out: it is the network's answer that is guided.
    """
    if sampler.stochastic:
        return None
    x_T = torch.linspace(-2, 2, 8, dtype=torch.float64).view(1, 1, 1, 8)
    try:
        questions = _questions(sampler)
        walked = _walk(sampler, x_T, lambda _, x_t: x_t.cos(), lambda x_0: x_0.clamp(-1, 1))
    except Exception:  # a sampler may ask a network for anything else than eps
        return None
    known = [x_T]
    for one in questions:
        state = combine(one.weights, known)
        known.append(state.clamp(-1, 1) if one.time is None else state.cos())
    return questions if torch.allclose(state, walked) else None


def _questions(sampler: Sampler) -> list[Question]:
    size = 8 * len(sampler.times) + 32  # more than there are
    basis = torch.eye(size, dtype=torch.float64).view(size, 1, 1, 1, size)
    found: list[Question] = []

    def ask(time: float | None, state: Tensor) -> Tensor:
        weights = state.flatten()[: len(found) + 1].tolist()
        found.append(Question(time, tuple(weights)))
        return basis[len(found)]

    ask(None, _walk(sampler, basis[0], ask, lambda x_0: ask(None, x_0)))
    return found


def _walk(
    sampler: Sampler, x_T: Tensor, answer: _Answer, clamp: Callable[[Tensor], Tensor]
) -> Tensor:
    """Where this sampler ends from the state x_T, of another network.

    Args:
        sampler: whose network is not asked.
        x_T: the state that it begins with.
        answer: x_0 by the time and the state.
        clamp: in the place of its own, if it clips.
    """

    class Network(Denoiser):
        prediction = "sample"

        def forward(
            self, x_t: Tensor, t: float | Tensor, condition: Condition | None = None
        ) -> Tensor:
            return answer(float(t), x_t)

    walker = copy.copy(sampler)  # which shares all but the network
    walker._modules = {"denoiser": Network(nn.Identity(), sampler.schedule, (1, 1, x_T.numel()))}
    walker.guidance = 1.0
    if sampler.clip and type(sampler).clamped is Sampler.clamped:
        walker.clamped = clamp  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        end: Tensor = walker(x_T / sampler.schedule.start(sampler.times[0]))
    return end
