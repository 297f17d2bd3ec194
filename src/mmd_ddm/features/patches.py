r"""What small patches of an image look like, as the quantiles of random projections of them.

A patch is 5 x 5 pixels of all channels, taken at every place of the image and of the image at half
its size. Along each of 32 random directions theta_l, unit vectors without a mean, so that
brightness counts for nothing, the projections of all patches of one image are sorted, and

    phi_lj(x) = the mean of the j-th eighth of sort{theta_l . p : p a patch of x}.

The mean squared difference of two such vectors is, to the resolution of the eighths, the squared
sliced 2-Wasserstein distance between the patches of two images. iRDM's metric SW_r14 takes this
distance between two *sets of images*, in the features of 14 networks, over the same distance
between real sets. What is kept of it is the statistic, sorted random projections, which shares
nothing with trained features; what is compared are patches within an image, and sets of images by
the MMD or whatever metric is asked for.

References:
    Rabin et al., "Wasserstein Barycenter and its Application to Texture Mixing", 2011.
    Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
    2018 (sliced distances between patches, at several sizes of the image).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.features.base import FeatureExtractor

__all__ = ["Patches"]

_SIDE, _DIRECTIONS, _PARTS = 5, 32, 8


class Patches(FeatureExtractor):
    """phi(x) = sorted projections of the patches of x, averaged in eighths, at two sizes.

    Args:
        channels: of the images.
        seed: of the directions; another one is another space.
    """

    name = "patches"
    directions: Tensor

    def __init__(self, channels: int, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        theta = torch.randn((_DIRECTIONS, channels, _SIDE, _SIDE), generator=draw)
        theta = theta - theta.mean((2, 3), keepdim=True)
        theta = theta / theta.flatten(1).norm(dim=1)[:, None, None, None]
        self.register_buffer("directions", theta)
        self.dim = 2 * _DIRECTIONS * _PARTS

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Project, sort, average the eighths.

        Raises:
            ValueError: images whose half is smaller than a patch.
        """
        if min(images.shape[2:]) < 2 * _SIDE:
            raise ValueError(
                f"patches needs images of at least {2 * _SIDE} pixels a side; got "
                f"{images.shape[2]} x {images.shape[3]}: choose another space"
            )
        quantiles = []
        for scaled in (images, nn.functional.avg_pool2d(images, 2)):
            projected = nn.functional.conv2d(scaled, self.directions).flatten(2)
            ordered = projected.sort(2).values
            quantiles.append(nn.functional.adaptive_avg_pool1d(ordered, _PARTS).flatten(1))
        return torch.cat(quantiles, 1)
