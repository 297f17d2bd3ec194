r"""The kernel inception distance, in any feature space, with its standard error.

KID is the unbiased MMD^2 of Eq. 7 (with its constant) under the cubic kernel, over the whole of
both sets rather than over random subsets: the same expectation, and a smaller variance.

References:
    Binkowski et al., "Demystifying MMD GANs", 2018.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.kernels import Polynomial
from mmd_ddm.mmd import mmd2, mmd2_standard_error

__all__ = ["kid"]


def kid(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[float, float]:
    """``(KID, standard error)`` between two sets of features, in float64.

    Raises:
        ValueError: fewer than two vectors in a set.
    """
    kernel = Polynomial(degree=3)
    x, y = x.to(torch.float64), y.to(torch.float64)
    return float(mmd2(x, y, kernel)), float(mmd2_standard_error(x, y, kernel))
