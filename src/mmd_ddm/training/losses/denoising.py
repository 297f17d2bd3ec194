r"""The denoising loss (Eq. 5).

    min_theta E || target - network(alpha_t x_0 + sigma_t eps, t) ||^2

with eps, v = alpha_t eps - sigma_t x_0 or x_0 as the target.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.maths.schedules import betas_of
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
    """Eq. 5 on one batch, t uniform over 0 ... T-1.

    Args:
        denoiser: says what is predicted, with which schedule and precision.
        network: the network to call: the denoiser's own, or its compiled twin.
        x_0: images in [-1, 1].
        draw: of t and eps, on the device of x_0.
        condition: of the images, on the same device.
    """
    t = torch.randint(len(denoiser.schedule), (len(x_0),), generator=draw, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=draw, device=x_0.device)
    schedule = betas_of(denoiser.schedule, "the denoising loss")
    abar = schedule.alpha_bar.to(x_0.device)[t][:, None, None, None].to(x_0.dtype)
    alpha_t, sigma_t = abar.sqrt(), (1 - abar).sqrt()
    targets = {"epsilon": eps, "sample": x_0, "v_prediction": alpha_t * eps - sigma_t * x_0}
    with denoiser.precision():
        output = network(
            alpha_t * x_0 + sigma_t * eps, t, **(condition.tensors if condition else {})
        )
    prediction = getattr(output, "sample", output).to(x_0.dtype)
    return nn.functional.mse_loss(prediction, targets[denoiser.prediction])


def mirrored_half(
    x_0: Float[Tensor, "n c h w"], draw: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Mirror each image with probability 1/2."""
    mirrored = torch.rand(len(x_0), generator=draw, device=x_0.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x_0.flip(3), x_0)
