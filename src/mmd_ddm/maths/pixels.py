"""The one range conversion between pixels and tensors.

Networks and feature extractors see float images in [-1, 1], shape [n, c, h, w]; files and
metrics see uint8. Nothing else in the project converts between the two.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["clamp_hard", "clamp_straight_through", "from_uint8", "to_uint8"]


def from_uint8(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map 0 ... 255 to [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Clamp to [-1, 1] and round to 0 ... 255, as diffusers' pipelines do."""
    unit = (images.detach().float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8)


def clamp_hard(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Clamp to [-1, 1], as the paper; saturated pixels have no gradient."""
    return images.clamp(-1, 1)


def clamp_straight_through(images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Clamp to [-1, 1]; the gradient passes as if it had not been clamped.

    A plain clamp has no gradient at saturated pixels, which are most of a black background.
    """
    # In this order the forward value is the clamped one exactly, however large the image's is.
    return images.clamp(-1, 1).detach() + (images - images.detach())
