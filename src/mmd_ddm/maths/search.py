r"""Times searched for one network: the cheapest of all paths from noise to data, exactly.

Of n states from the noisiest to the least noisy one, with a cost of each leap i -> j, the best K
leaps follow from the best K - 1 (Bellman),

    V_1[i] = cost[i, n],   V_k[i] = min_{j > i} cost[i, j] + c V_{k-1}[j],

where c > 1 makes leaps late in the path dearer. Two costs are known:

- *elbo*: terms of the variational bound with the smaller posterior variance,
  (SNR_j - SNR_i) / 2 E |x_0 - x_0(x_t, t_i)|^2; good for bits, not for pictures;
- *straight*: how far DDIM's one step from a teacher's state i ends from its state j, in x / alpha.

References:
    Watson, Ho, Norouzi, Chan, "Learning to Efficiently Sample from Diffusion Probabilistic
    Models", 2021 (elbo).
    Chen, Zhou, Wang, Shen, Lyu, "On the Trajectory Regularity of ODE-based Diffusion Sampling",
    2024 (GITS: straight, c = 1.15).
"""

from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["cheapest_path", "elbo_costs", "straight_costs"]


def cheapest_path(costs: Float[Tensor, "n n"], leaps: int, factor: float = 1.0) -> tuple[int, ...]:
    """The states of the cheapest path from the first to the last, both included.

    Args:
        costs: of the leap from each to each later one; others are not read.
        leaps: how many, from 1 to n - 1.
        factor: c.

    Raises:
        ValueError: more leaps than there are states to land on.
    """
    n = len(costs)
    if not 1 <= leaps < n:
        raise ValueError(f"a path through {n} states has 1 to {n - 1} leaps; got {leaps}")
    costs = costs.masked_fill(~torch.ones_like(costs, dtype=torch.bool).triu(1), inf)
    value, picks = costs[:, -1], []
    for _ in range(leaps - 1):
        value, pick = (costs + factor * value).min(1)
        picks.append(pick)
    path = [0]
    for pick in reversed(picks):
        path.append(int(pick[path[-1]]))
    return (*path, n - 1)


def elbo_costs(snr: Float[Tensor, " n"], errors: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """Terms of the bound.

    Args:
        snr: alpha^2 / sigma^2 at each time, rising.
        errors: E |x_0 - x_0(x_t, t)|^2 there.
    """
    return (snr - snr[:, None]) / 2 * errors[:, None]


def straight_costs(
    states: Float[Tensor, "n m *shape"], slopes: Float[Tensor, "n m *shape"], rho: Tensor
) -> Float[Tensor, "n n"]:
    """Mean distances of single steps from a teacher's trajectories.

    Args:
        states: x_t / alpha_t of m trajectories at every time, the data last.
        slopes: eps there; of the data, anything.
        rho: sigma / alpha, [n]; 0 for the data.
    """
    rows = []
    for i in range(len(states)):
        step = (rho - rho[i]).view(-1, *[1] * (states.dim() - 1)) * slopes[i]
        rows.append((states[i] + step - states).abs().flatten(1).mean(1))
    return torch.stack(rows)
