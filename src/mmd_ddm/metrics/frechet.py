r"""The Fréchet distance between Gaussians fitted to two sets of features.

    FD = ||mu_x - mu_y||^2 + tr(S_x + S_y - 2 (S_x S_y)^{1/2})

which is FID where the features are Inception-V3's. The trace of the root is the sum of the
square roots of the eigenvalues of S_x^{1/2} S_y S_x^{1/2}, a symmetric matrix: the same value as
the general eigenvalue problem that torch-fidelity solves, several times faster.

References:
    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["frechet_distance"]


def frechet_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """FD between two sets of features, in float64.

    Small samples bias it upward (by about d (1/n + 1/m) times a variance); compare it with the
    real-versus-real floor at the same counts.

    Raises:
        ValueError: fewer than two vectors in a set, or sets of different dimension.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs at least 2 vectors; got {len(x)} and {len(y)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the sets have different dimensions, {x.shape[1]} and {y.shape[1]}")
    x, y = x.to(torch.float64), y.to(torch.float64)
    mean_difference = x.mean(0) - y.mean(0)
    cov_x, cov_y = x.T.cov(), y.T.cov()
    values, vectors = torch.linalg.eigh(cov_x)
    root_x = vectors * values.clamp_min(0).sqrt() @ vectors.T
    trace_root = torch.linalg.eigvalsh(root_x @ cov_y @ root_x).clamp_min(0).sqrt().sum()
    distance = mean_difference.square().sum() + cov_x.trace() + cov_y.trace() - 2 * trace_root
    return float(distance)
