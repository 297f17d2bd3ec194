r"""Positive definite kernels that compare two feature vectors (paper Sec. IV-E).

Each kernel is a small frozen dataclass, called on two sets of vectors:

    ``Kernel()(x: [n, d], y: [m, d]) -> [n, m]``

References:
    Binkowski et al., "Demystifying MMD GANs", 2018 (the cubic kernel of KID).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "KERNELS",
    "Gaussian",
    "Kernel",
    "Linear",
    "Polynomial",
    "make_kernel",
    "median_sigma",
]

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Linear:
    r"""k(x, y) = x^T y."""

    def __call__(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Return k(x_i, y_j)."""
        return x @ y.T


@dataclass(frozen=True)
class Polynomial:
    r"""k(x, y) = (x^T y / d + 1)^degree; the paper's *cubic* kernel at its default.

    Attributes:
        degree: a positive integer.
    """

    degree: int = 3

    def __call__(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Return k(x_i, y_j)."""
        return (x @ y.T / x.shape[1] + 1) ** self.degree


@dataclass(frozen=True)
class Gaussian:
    r"""k(x, y) = exp(-||x - y||^2 / (2 sigma^2)).

    Attributes:
        sigma: bandwidth. ``None`` takes sigma^2 = d / 2, that is exp(-||x - y||^2 / d), the
            choice of the paper's released code.
    """

    sigma: float | None = None

    def __call__(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Return k(x_i, y_j)."""
        two_sigma2 = x.shape[1] if self.sigma is None else 2 * self.sigma**2
        # Expanded, not torch.cdist: its gradient at distance 0 is finite.
        distance2 = (x * x).sum(1)[:, None] - 2 * x @ y.T + (y * y).sum(1)
        return torch.exp(-distance2.clamp_min(0) / two_sigma2)


def median_sigma(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """The median heuristic: sigma^2 is half the median of ||x_i - y_j||^2."""
    return float(torch.cdist(x, y).median()) / math.sqrt(2)


KERNELS: dict[str, Callable[[], Kernel]] = {
    "linear": Linear,
    "cubic": Polynomial,
    "gaussian": Gaussian,
}


def make_kernel(name: str) -> Kernel:
    """The kernel of that name; ``gaussian:8.5`` is the Gaussian of that sigma.

    Raises:
        ValueError: an unknown name, or a sigma that is not above 0.
    """
    kind, colon, text = name.partition(":")
    if kind == "gaussian" and colon:
        try:
            sigma = float(text)
        except ValueError:
            sigma = math.nan
        if not 0 < sigma < math.inf:
            raise ValueError(f"kernel {name!r}: sigma is a number above 0, as in gaussian:8.5")
        return Gaussian(sigma)
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; choose one of {', '.join(KERNELS)}")
    return KERNELS[name]()
