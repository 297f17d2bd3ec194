r"""An estimate of the MMD as what each vector adds to it, so that differences of estimates pair.

The unbiased MMD^2 between x and y is mean(u) + mean(v) with

    u_i = E_x' k(x_i, x') - E_y k(x_i, y),     v_j = E_y' k(y_j, y') - E_x k(y_j, x),

its first Hoeffding projections, and its variance is 4 Var(u) / n + 4 Var(v) / m to first order.
Two estimates that share their noise or their real images are not independent: the error of their
difference is that of the differences u_i - u'_i and v_j - v'_j, vector by vector.

References:
    Hoeffding, "A class of statistics with asymptotically normal distribution", 1948.
    Sutherland et al., "Generative Models and Model Criticism via Optimized MMD", 2017.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["Projections"]


@dataclass(frozen=True)
class Projections:
    """A linear combination of estimates of MMD^2, with its error.

    Attributes:
        parts: [n] each, in float64, by the name of the sample that the vectors belong to: equal
            names are the same vectors in the same order, other names are independent.
    """

    parts: Mapping[str, Float[Tensor, " n"]]

    def __add__(self, other: "Projections") -> "Projections":
        both = {**self.parts, **other.parts}
        for name in self.parts.keys() & other.parts.keys():
            both[name] = self.parts[name] + other.parts[name]
        return Projections(both)

    def __mul__(self, factor: float) -> "Projections":
        return Projections({name: factor * part for name, part in self.parts.items()})

    def __sub__(self, other: "Projections") -> "Projections":
        return self + other * -1.0

    @property
    def value(self) -> float:
        """The estimate."""
        return math.fsum(float(part.mean()) for part in self.parts.values())

    @property
    def se(self) -> float:
        """Its standard error, to first order."""
        return self.se_of(*self.parts)

    def se_of(self, *names: str) -> float:
        """The share of these samples in the standard error: the squares of the shares add up."""
        parts = [self.parts[name] for name in names]
        return math.sqrt(math.fsum(4 * float(part.var()) / len(part) for part in parts))
