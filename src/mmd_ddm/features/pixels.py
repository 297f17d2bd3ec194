"""Raw pixels, averaged over a 7 x 7 grid: colour and layout, nothing learned."""

from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.features.base import FeatureExtractor

__all__ = ["Pixels"]


class Pixels(FeatureExtractor):
    """phi(x) = the image scaled down to 7 x 7.

    Args:
        channels: of the images.
    """

    name = "pixels"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = channels * 49

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Average over the grid."""
        return nn.functional.adaptive_avg_pool2d(images, 7).flatten(1)
