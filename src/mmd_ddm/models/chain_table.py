"""A chain as numbers, which an exported model holds."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["ChainTable"]


@dataclass(frozen=True)
class ChainTable:
    """A chain of n network calls; `mmd_ddm.samplers.table` says where the numbers come from.

    Attributes:
        times: of each call.
        alpha_bars: there.
        weights: row j is what the state after call j is made of: its share of the first state,
            then of x_0 as predicted in each call, zero for those to come.
    """

    times: tuple[float, ...]
    alpha_bars: tuple[float, ...]
    weights: Float[Tensor, "n n+1"]
