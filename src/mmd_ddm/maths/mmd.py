r"""The squared maximum mean discrepancy between two sets of feature vectors (paper Eqs. 6, 7).

    MMD^2 = E k(x, x') - 2 E k(x, y) + E k(y, y')

*within* estimates the first and last term, *cross* the middle one. The unbiased estimator leaves
the diagonal out of the within terms; Eq. 7 is its part that depends on the generated set, with
the last term as the constant c. The finetuning loss and the KID metric both come from here.

References:
    Gretton et al., "A Kernel Two-Sample Test", 2012.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmd_ddm.maths.kernels import Kernel, Linear
from mmd_ddm.maths.projections import Projections

__all__ = [
    "cross",
    "landmark_weights",
    "mmd2",
    "mmd2_projections",
    "mmd2_standard_error",
    "off_diagonal_sums",
    "pair_sum",
    "within",
]


def within(
    x: Float[Tensor, "n d"], kernel: Kernel, *, unbiased: bool = True, block: int = 4096
) -> Float[Tensor, ""]:
    """The mean of k over all pairs of one set; without the pairs (i, i) if unbiased.

    Raises:
        ValueError: fewer than two vectors with ``unbiased``.
    """
    n = len(x)
    if unbiased:
        return off_diagonal_sums(x, kernel, block).sum() / (n * (n - 1))
    return _row_sums(x, x, kernel, block).sum() / n**2


def cross(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    kernel: Kernel,
    *,
    weights: Float[Tensor, " m"] | None = None,
    block: int = 4096,
) -> Float[Tensor, ""]:
    """The mean of k over all pairs (x_i, y_j), or sum_j w_j k(x_i, y_j) on average over i."""
    total = _row_sums(x, y, kernel, block, weights).sum() / len(x)
    return total / len(y) if weights is None else total


def pair_sum(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    kernel: Kernel,
    weights: Float[Tensor, "n m"],
    *,
    block: int = 4096,
) -> Float[Tensor, ""]:
    """sum_ij w_ij k(x_i, y_j)."""
    return _row_sums(x, y, kernel, block, weights).sum()


def mmd2(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    kernel: Kernel,
    *,
    unbiased: bool = True,
    constant: float | None = None,
    weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, ""]:
    """The squared MMD between two sets.

    Args:
        x: generated features.
        y: real features.
        kernel: a kernel of `mmd_ddm.maths.kernels`.
        unbiased: Eq. 7's estimator, which can be negative; otherwise the V-statistic.
        constant: the within term of y, if it is known already (it does not depend on x).
        weights: of y in the cross term; None is 1/m each.

    Raises:
        ValueError: fewer than two vectors in a set with ``unbiased``.
    """
    c = within(y, kernel, unbiased=unbiased) if constant is None else constant
    return within(x, kernel, unbiased=unbiased) - 2 * cross(x, y, kernel, weights=weights) + c


@torch.no_grad()
def mmd2_projections(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    kernel: Kernel,
    *,
    names: tuple[str, str] = ("x", "y"),
    y_sums: Float[Tensor, " m"] | None = None,
    block: int = 4096,
) -> Projections:
    """The unbiased `mmd2` with its error, as what each vector adds to it.

    Args:
        x: generated features.
        y: real features.
        kernel: a kernel of `mmd_ddm.maths.kernels`.
        names: of the two samples, by which estimates pair.
        y_sums: ``off_diagonal_sums(y, kernel)``, if known already.
        block: rows and columns of a kernel matrix held at once.
    """
    n, m = len(x), len(y)
    of_x = off_diagonal_sums(x, kernel, block) / (n - 1)
    of_y = (off_diagonal_sums(y, kernel, block) if y_sums is None else y_sums) / (m - 1)
    x_to_y = _row_sums(x, y, kernel, block) / m
    y_to_x = _row_sums(y, x, kernel, block) / n
    of_sample, of_real = names
    return Projections({of_sample: of_x - x_to_y, of_real: of_y - y_to_x})


def mmd2_standard_error(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], kernel: Kernel, *, block: int = 4096
) -> float:
    """The standard error of the unbiased `mmd2`; see `Projections`."""
    return mmd2_projections(x, y, kernel, block=block).se


def off_diagonal_sums(
    x: Float[Tensor, "n d"], kernel: Kernel, block: int = 4096
) -> Float[Tensor, " n"]:
    """sum_{j != i} k(x_i, x_j) for every i.

    Raises:
        ValueError: fewer than two vectors.
    """
    if len(x) < 2:
        raise ValueError(f"the unbiased MMD needs at least 2 vectors in a set; got {len(x)}")
    return _row_sums(x, x, kernel, block, diagonal=False)


def _row_sums(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    kernel: Kernel,
    block: int,
    weights: Float[Tensor, " m"] | Float[Tensor, "n m"] | None = None,
    *,
    diagonal: bool = True,
) -> Float[Tensor, " n"]:
    """sum_j w_j k(x_i, y_j) for every i, w = 1 by default; without j = i if not ``diagonal``.

    Weights may be those of pairs, w_ij.

    At most ``block`` rows and columns are held at once.
    """
    of_pairs = weights is not None and weights.ndim == 2
    if isinstance(kernel, Linear) and not of_pairs:  # linear: one product with the sum of y
        products = x @ (y.sum(0) if weights is None else weights @ y)
        return products if diagonal else products - (x * x).sum(1)

    def of(rows: Tensor, columns: Tensor, w: Tensor | None, own: bool) -> Tensor:
        k = kernel(rows, columns)
        if own and not diagonal:
            # Zeroed, not subtracted: a sum far below the diagonal keeps its digits.
            k = k.clone()  # the kernel's backward pass may read its own result
            k.diagonal().zero_()
        if w is None:
            return k.sum(1)
        return (k * w).sum(1) if of_pairs else k @ w

    if max(len(x), len(y)) <= block:
        return of(x, y, weights, True)
    columns, sums = y.split(block), []
    for i, rows in enumerate(x.split(block)):
        own = weights[i * block : (i + 1) * block] if weights is not None and of_pairs else weights
        parts = [None] * len(columns) if own is None else own.split(block, dim=-1)
        total = x.new_zeros(len(rows))
        for j, (column, w) in enumerate(zip(columns, parts, strict=True)):
            # Recomputed in the backward pass, which would otherwise hold all the blocks.
            total = total + checkpoint(of, rows, column, w, i == j, use_reentrant=False)
        sums.append(total)
    return torch.cat(sums)


def landmark_weights(
    z: Float[Tensor, "r d"], blocks: Iterable[Float[Tensor, "_ d"]], kernel: Kernel
) -> Float[Tensor, " r"]:
    r"""Weights w with sum_r w_r k(., z_r) close to the mean of k(., y_j): Nystroem's method.

    (K_zz + lambda I) w = (1/m) K_zy 1, in float64, lambda = 1e-6 of the mean diagonal.

    Args:
        z: some of the vectors y.
        blocks: all of them, in parts.
        kernel: of the MMD.

    References:
        Chatalic et al., "Nystroem Kernel Mean Embeddings", 2022.
    """
    z64 = z.double()
    sums, m = z64.new_zeros(len(z)), 0
    for y in blocks:
        sums, m = sums + _row_sums(z64, y.double(), kernel, len(y)), m + len(y)
    K = kernel(z64, z64)
    K.diagonal().add_(1e-6 * K.diagonal().mean())
    weights: Tensor = torch.linalg.solve(K, sums / m)
    return weights.to(z.dtype)
