r"""Spherical linear interpolation between two noises (paper Eq. 8).

    x_T^(a) = sin((1 - a) theta) / sin(theta) x_T^(0) + sin(a theta) / sin(theta) x_T^(1)

with theta the angle between them: what lies between two standard normal noises has their norm,
which a straight line would lose.

References:
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2020, Appendix D.5.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["slerp"]


def slerp(
    start: Float[Tensor, "c h w"], end: Float[Tensor, "c h w"], frames: int
) -> Float[Tensor, "frames c h w"]:
    """The way from one noise to another, both ends included, at even steps of the angle.

    Args:
        start: x_T^(0).
        end: x_T^(1), neither parallel nor opposite to it.
        frames: how many; at least 2.
    """
    cosine = torch.cosine_similarity(start.flatten(), end.flatten(), dim=0)
    theta = cosine.clamp(-1, 1).arccos()
    a = torch.linspace(0, 1, frames, device=start.device).to(start)[:, None, None, None]
    return (((1 - a) * theta).sin() * start + (a * theta).sin() * end) / theta.sin()
