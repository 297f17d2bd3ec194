r"""CMMD: the biased MMD^2 between normalised CLIP embeddings, by 1000.

    k(x, y) = exp(-||x - y||^2 / (2 sigma^2)),   sigma = 10,   ||x|| = ||y|| = 1

It is defined in CLIP ViT-L/14 at 336 pixels (``clip:openai/clip-vit-large-patch14-336``), and can
be had in any other space; numbers of different spaces do not compare.

References:
    Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation",
    2024.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.kernels import Gaussian
from mmd_ddm.metrics.kid import InFloat64
from mmd_ddm.mmd import mmd2

__all__ = ["cmmd"]

_SCALE = 1000


def cmmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """CMMD between two sets of features, in float64."""
    x, y = (torch.nn.functional.normalize(s) for s in (x, y))
    return _SCALE * float(mmd2(x, y, InFloat64(Gaussian(10)), unbiased=False))
