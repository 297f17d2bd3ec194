r"""The power spectrum of an image, averaged over rings: how much detail it has at every scale.

For each channel of h x w pixels, with the orthonormal transform X(u, v) = F[x],

    phi_k(x) = log10(1 + mean |X(u, v)|^2 / q over the frequencies of ring k),

ring k holding the frequencies whose radius, in cycles over the shorter side, rounds to k: from the
mean brightness (k = 0) to the checkerboard in the corner. q = (2/255)^2 / 12 is the power that
rounding to 8 bits has at every frequency, so that phi counts decades above it: what is weaker no
file holds, and it is 0, with a finite gradient. Phases, and so all layout, are left out.

References:
    Durall et al., "Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are
    Failing to Reproduce Spectral Distributions", 2020 (azimuthal averages of the spectrum).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor

__all__ = ["Frequencies"]

_ROUNDING = (2 / 255) ** 2 / 12  # variance of an error that is uniform over one of 255 levels


class Frequencies(FeatureExtractor):
    """phi(x) = log power in rings of frequencies; as many rings as the image has room for."""

    name = "frequencies"

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Transform, square, average over the rings, take logarithms."""
        transformed = torch.view_as_real(torch.fft.fft2(images, norm="ortho"))
        power = transformed.square().sum(-1).flatten(2)
        rings = _rings(*images.shape[2:]).to(images.device)
        members = torch.nn.functional.one_hot(rings).to(power)
        averaged = power @ (members / (members.sum(0) * _ROUNDING))
        vectors = (averaged.log1p() / math.log(10)).flatten(1)
        self.dim = vectors.shape[1]
        return vectors


def _rings(height: int, width: int) -> Tensor:
    """Of every frequency of an image, row by row, the number of its ring."""
    v, u = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    radius = torch.hypot(v[:, None], u) * min(height, width)
    # Away from the middle between two rings, where the last digit would decide.
    return (radius.flatten() - 1e-9).round().long()
