r"""Solvers whose numbers are trained: the times and the coefficients, beside the network or alone.

Every deterministic solver is a table (`mmd_ddm.samplers.table`): the state after call j is

    x_{j+1} = c_j x_T + sum_{i <= j} w_ji m_i,    m_i = x_0 as predicted at time t_i.

`Trainable` starts as one of them. Its *times* are parted in lambda = log(alpha / sigma): the first
stays, the others go on from there in shares of the way to `Schedule.last` that are a softmax, so
that they keep their order; the solver's coefficients follow them. Its *coefficients* are added to
the solver's. With the times alone it is LD3, with both S4S.

Coefficients that keep the *marginals* draw from q(x_t) at every time if x_0 is predicted rightly.
Then m_i = x_0 throughout, and x_{j+1} = alpha x_0 + sigma eps asks for

    c_j = sigma_{j+1} / sigma_T,    c_j alpha_T + sum_i w_ji = alpha_{j+1}.

Every solver here has this property; it is kept where what is added to a row has no share of x_T
and the sum 0. These are the noise-free members of GGDM (v = 0): its sums over all earlier states
and the last x_0 are ours over x_T and all x_0, in other words. `Learned` walks what came out.

The derivatives of the solver's table by its times are central differences, in float64.

References:
    Watson et al., "Learning Fast Samplers for Diffusion Models by Differentiating Through Sample
    Quality", 2022 (GGDM).
    Tong et al., "Learning to Discretize Denoising Diffusion ODEs", 2025 (LD3).
    Frankel et al., "S4S: Solving for a Diffusion Model Solver", 2025.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmd_ddm.maths.times import check_times
from mmd_ddm.models.chain_table import ChainTable, table_in
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler, Walk
from mmd_ddm.samplers.table import linear_weights, table_of

__all__ = ["Learned", "Trainable"]

_STEP = 1e-6  # in lambda, of the differences: less than there is between training times


class _OfTable(Sampler):
    """Walks a table."""

    @abstractmethod
    def numbers(self, like: Tensor) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k+1"]]:
        """The times and the weights, as tensors of the kind of another."""

    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """A row of the table."""
        if not walk.history:
            walk.history = [*self.numbers(x_t), x_t]
        times, weights, *known = walk.history
        i = len(known) - 1
        x_0, _ = walk.predict(x_t, times[i].expand(x_t.shape[0]))
        walk.history.append(x_0)
        row = zip(weights[i, : i + 2], (*known, x_0), strict=True)
        x_s: Tensor = sum(w * x for w, x in row)
        return x_s


class Learned(_OfTable):
    """The solver that was learned with a model, and lies in its folder.

    Args:
        denoiser: as in `Sampler`; with its table.
        times: those of the table.
        options: of `Sampler`, without clipping.

    Raises:
        ValueError: a denoiser without table, or other times.
    """

    def __init__(self, denoiser: Denoiser, times: Sequence[float], **options: Any) -> None:
        super().__init__(denoiser, times, **options)
        self.table = table_in(denoiser)
        if self.clip or self.times != check_times(self.table.times, self.schedule):
            raise ValueError(
                f"this sampler was learned for times {[*self.table.times]} without clipping; got "
                f"{[*self.times]}{', clipped' * self.clip}: name neither steps, times nor spacing"
            )

    def numbers(self, like: Tensor) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k+1"]]:
        """Constants."""
        return like.new_tensor(self.table.times), self.table.weights.to(like)


class Trainable(_OfTable):
    """A solver with weights of its own.

    Args:
        start: the deterministic solver to begin as, of one network call a step.
        solver: makes it again at other times.
        times: train these.
        coefficients: train these.
        marginals: keep them.

    Raises:
        ValueError: a solver that has no table, or of several calls a step.
    """

    NUMBERS = ("shares", "offsets")  # the weights that are its own

    def __init__(
        self,
        start: Sampler,
        solver: Callable[[Sequence[float]], Sampler],
        *,
        times: bool = True,
        coefficients: bool = False,
        marginals: bool = False,
    ) -> None:
        super().__init__(start.denoiser, start.times, recompute=start.recompute)
        table, n = table_of(start), len(start.times)
        last = self.schedule.last
        if table is None or len(table.times) != n or start.times[-1] <= last:
            raise ValueError(
                f"{type(start).__name__} at times {[*start.times]} has no numbers to train: take "
                "a deterministic sampler of one network call a step, without clipping (ddim, "
                f"unipc, dpm-solver++-2m, ipndm, deis), and times that end above {last:g}"
            )
        self._solver, self._marginals = solver, marginals
        clock = np.array([self.schedule.log_snr(t) for t in (*start.times, last)])
        if clock[0] == -inf:  # no image there; a unit of lambda stands for the way from it
            clock[0] = clock[1] - 1
        self._start, self._way = clock[0], clock[-1] - clock[0]
        like = next(self.denoiser.network.parameters())
        shares = like.new_tensor(np.log(np.diff(clock) / self._way))
        self.shares = nn.Parameter(shares, requires_grad=times)
        self.offsets = nn.Parameter(like.new_zeros(n, n + 1), requires_grad=coefficients)

    def table(self) -> ChainTable:
        """As it stands."""
        with torch.no_grad():
            times, weights = self.numbers(self.offsets.double())
        at = tuple(map(float, times))
        return ChainTable(at, tuple(map(self.schedule.abar, at)), weights.cpu())

    def constants(self) -> list[Any]:
        """Its numbers."""
        table = self.table()
        return [table.times, table.rows()]

    def numbers(self, like: Tensor) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k+1"]]:
        """Differentiable in the weights."""
        n = len(self.times)
        clock = self._start + self._way * self.shares.double().softmax(0).cumsum(0)[:-1]
        solved = _Differences.apply(self._solved, clock)
        times, weights = solved[:n], solved[n:].view(n, n + 1)
        return times.to(like), (weights + self._added()).to(like)

    def _added(self) -> Float[Tensor, "k k+1"]:
        added = self.offsets.tril(1)
        if not self._marginals:
            return added
        shares = added.new_ones(added.shape).tril(1)
        shares[:, 0] = 0
        mean = (added * shares).sum(1, keepdim=True) / shares.sum(1, keepdim=True)
        return (added - mean) * shares

    def _solved(self, clock: np.ndarray) -> np.ndarray:
        """Times and the solver's table, in one line, by the times after the first in lambda."""
        times = [self.times[0], *self.schedule.time_of(clock).tolist()]
        _, weights = linear_weights(self._solver(times))
        return np.append(times, weights.numpy())


class _Differences(torch.autograd.Function):
    """A function of a vector that cannot be differentiated otherwise."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[np.ndarray], np.ndarray], x: Tensor) -> Tensor:
        at = x.detach().cpu().numpy()
        found = function(at)
        if ctx.needs_input_grad[1]:
            slopes = np.empty((len(at), len(found)))
            for slope, move in zip(slopes, _STEP * np.eye(len(at)), strict=True):
                slope[:] = (function(at + move) - function(at - move)) / (2 * _STEP)
            ctx.save_for_backward(x.new_tensor(slopes))
        return x.new_tensor(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (slopes,) = ctx.saved_tensors
        return None, slopes @ gradient
