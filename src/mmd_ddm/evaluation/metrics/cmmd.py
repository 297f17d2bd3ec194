r"""CMMD: the biased MMD^2 between normalised CLIP embeddings, by 1000.

    k(x, y) = exp(-||x - y||^2 / (2 sigma^2)),   sigma = 10,   ||x|| = ||y|| = 1

It is defined in CLIP ViT-L/14 at 336 pixels (``clip:openai/clip-vit-large-patch14-336``), and can
be had in any other space; numbers of different spaces do not compare.

References:
    Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation",
    2024.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from mmd_ddm.evaluation.metrics.kid import BLOCK
from mmd_ddm.maths.kernels import Gaussian
from mmd_ddm.maths.mmd import cross, within

__all__ = ["cmmd"]

_SCALE = 1000


def cmmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """CMMD between two sets of features, in float64."""
    of_x, of_y = (within(s, _kernel, unbiased=False, block=BLOCK) for s in (x, y))
    return _SCALE * float(of_x + of_y - 2 * cross(x, y, _kernel, block=BLOCK))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return Gaussian(10)(normalize(x.double()), normalize(y.double()))
