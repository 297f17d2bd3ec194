r"""The kernel inception distance, in any feature space, with its standard error.

KID is the unbiased MMD^2 of Eq. 7 (with its constant) under the cubic kernel, over the whole of
both sets rather than over random subsets: the same expectation, and a smaller variance.

References:
    Binkowski et al., "Demystifying MMD GANs", 2018.
"""

from jaxtyping import Float
from torch import Tensor

from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.mmd import mmd2_projections, off_diagonal_sums
from mmd_ddm.maths.projections import Projections

__all__ = ["BLOCK", "kid", "kid_projections", "kid_sums"]

BLOCK = 1024  # vectors whose kernel values are held at once: 1024 x 1024 of them


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """In float64, to which a block is converted when it is needed."""
    return Polynomial(degree=3)(x.double(), y.double())


def kid(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[float, float]:
    """``(KID, standard error)`` between two sets of features, in float64.

    Args:
        x: generated features.
        y: real features.

    Raises:
        ValueError: fewer than two vectors in a set.
    """
    found = kid_projections(x, y)
    return found.value, found.se


def kid_projections(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    names: tuple[str, str] = ("generated", "real"),
    y_sums: Float[Tensor, " m"] | None = None,
) -> Projections:
    """KID as what each vector adds to it, so that differences of two KIDs can be paired.

    Args:
        x: generated features.
        y: real features.
        names: of the two sets, by which estimates pair.
        y_sums: ``kid_sums(y)``, for a real set that is compared with many times.
    """
    return mmd2_projections(x, y, _kernel, names=names, y_sums=y_sums, block=BLOCK)


def kid_sums(y: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
    """What KID needs of the real set alone."""
    return off_diagonal_sums(y, _kernel, BLOCK)
