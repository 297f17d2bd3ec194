r"""The denoising loss (Eq. 5).

    min_theta E || F - network(alpha_t x_0 + sigma_t eps, t) ||^2

with `mmd_ddm.maths.predictions.target` as F: eps, a flow's velocity eps - x_0 (Lipman et al.,
2023), EDM's effective target (Karras et al., 2022, Eq. 8), weighted alike at every sigma.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.maths.predictions import target
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser

__all__ = ["denoising_loss", "mirrored_half"]


def denoising_loss(
    denoiser: Denoiser,
    network: nn.Module,
    x_0: Float[Tensor, "n c h w"],
    draw: torch.Generator,
    condition: Condition | None = None,
) -> Float[Tensor, ""]:
    """Eq. 5 on one batch, at the times that its schedule draws.

    Args:
        denoiser: says what is predicted, with which schedule and precision.
        network: the network to call: the denoiser's own, or its compiled twin.
        x_0: images in [-1, 1].
        draw: of t and eps, on the device of x_0.
        condition: of the images, on the same device.
    """
    t, *levels = denoiser.schedule.draw(len(x_0), draw)
    eps = torch.randn(x_0.shape, generator=draw, device=x_0.device)
    alpha_t, sigma_t = (level[:, None, None, None] for level in levels)
    seen, told = denoiser.seen(alpha_t * x_0 + sigma_t * eps, t)
    with denoiser.precision():
        output = network(seen, told, **(condition.tensors if condition else {}))
    said = getattr(output, "sample", output).to(x_0.dtype)
    constants = denoiser.schedule.preconditioning
    return nn.functional.mse_loss(
        said, target(x_0, eps, alpha_t, sigma_t, denoiser.prediction, **constants)
    )


def mirrored_half(
    x_0: Float[Tensor, "n c h w"], draw: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Mirror each image with probability 1/2."""
    mirrored = torch.rand(len(x_0), generator=draw, device=x_0.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x_0.flip(3), x_0)
