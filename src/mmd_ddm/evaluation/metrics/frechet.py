r"""The Fréchet distance between Gaussians fitted to two sets of features.

    FD = ||mu_x - mu_y||^2 + tr(S_x + S_y - 2 (S_x S_y)^{1/2})

which is FID where the features are Inception-V3's. The trace of the root is the sum of the
square roots of the eigenvalues of S_y^{1/2} S_x S_y^{1/2}, a symmetric matrix: the same value as
the general eigenvalue problem that torch-fidelity solves, several times faster. Where many sets
are compared with one, as samplers are with the real images, the root of that one is kept.

References:
    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Moments", "frechet_distance"]

_ROWS = 4096


@dataclass(frozen=True)
class Moments:
    """The Gaussian fitted to a set of features, in float64.

    Attributes:
        mean: [d].
        cov: [d, d], with the divisor n - 1.
    """

    mean: Float[Tensor, " d"]
    cov: Float[Tensor, "d d"]

    @classmethod
    def of(cls, x: Float[Tensor, "n d"]) -> "Moments":
        """Fit to a set of features, a few thousand at a time.

        Raises:
            ValueError: fewer than two vectors.
        """
        if len(x) < 2:
            raise ValueError(f"a covariance needs at least 2 vectors; got {len(x)}")
        n, mean = 0, x.new_zeros(x.shape[1], dtype=torch.float64)
        scatter = torch.zeros_like(mean.outer(mean))
        for batch in x.split(_ROWS):
            # The parallel update of Chan et al. (1983), which loses no digits to a large mean.
            rows = batch.to(torch.float64)
            centre = rows.mean(0)
            rows, shift, k = rows - centre, centre - mean, len(rows)
            scatter += rows.T @ rows + shift.outer(shift) * (n * k / (n + k))
            mean, n = mean + shift * (k / (n + k)), n + k
        return cls(mean, scatter / (n - 1))

    @cached_property
    def root(self) -> Float[Tensor, "d d"]:
        """The symmetric square root of the covariance, computed once."""
        values, vectors = torch.linalg.eigh(self.cov)
        root: Tensor = vectors * values.clamp_min(0).sqrt() @ vectors.T
        return root


def frechet_distance(
    x: Float[Tensor, "n d"] | Moments, y: Float[Tensor, "m e"] | Moments
) -> float:
    """FD between two sets of features, in float64.

    Small samples bias it upward (by about d (1/n + 1/m) times a variance); compare it with the
    real-versus-real floor at the same counts.

    Args:
        x: features, or their moments.
        y: features, or their moments; the side whose root is kept.

    Raises:
        ValueError: fewer than two vectors in a set, or sets of different dimension.
    """
    x, y = (s if isinstance(s, Moments) else Moments.of(s) for s in (x, y))
    if len(x.mean) != len(y.mean):
        raise ValueError(f"the sets have different dimensions, {len(x.mean)} and {len(y.mean)}")
    trace_root = torch.linalg.eigvalsh(y.root @ x.cov @ y.root).clamp_min(0).sqrt().sum()
    distance = (x.mean - y.mean).square().sum() + x.cov.trace() + y.cov.trace() - 2 * trace_root
    return float(distance)
