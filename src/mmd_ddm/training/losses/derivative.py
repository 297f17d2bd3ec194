r"""The loss of GENIE's head: its error against the exact derivative of a frozen network.

    min_head E (rho_t (head(x_t, t) - d eps / d rho))^2,   x_t = alpha_t x_0 + sigma_t z,

with the derivative along the probability-flow ODE by a Jacobian-vector product, see
`mmd_ddm.samplers.genie`, and t uniform over 0 ... T-1.

References:
    Dockhorn, Vahdat, Kreis, "GENIE: Higher-Order Denoising Diffusion Solvers", 2022, Section 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.maths.schedules import betas_of
from mmd_ddm.models.genie_head import GenieHead, derivative, with_features
from mmd_ddm.models.protocol import Denoiser

__all__ = ["distillation_loss"]


def distillation_loss(
    denoiser: Denoiser, head: GenieHead, x_0: Float[Tensor, "n c h w"], draw: torch.Generator
) -> Float[Tensor, ""]:
    """The squared error of one batch, differentiable in the head alone.

    Args:
        denoiser: the teacher.
        head: on its device.
        x_0: images in [-1, 1].
        draw: of t and z, on the device of x_0.
    """
    t = torch.randint(len(denoiser.schedule), (len(x_0),), generator=draw, device=x_0.device)
    z = torch.randn(x_0.shape, generator=draw, device=x_0.device)
    times = t.to(x_0.dtype)
    alpha_t, sigma_t = denoiser.coefficients(times)
    x_t = alpha_t * x_0 + sigma_t * z
    schedule = betas_of(denoiser.schedule, "a GENIE head")
    dt = times.new_tensor([1 / schedule.rho_slope(now) for now in t.tolist()])
    with torch.no_grad():
        eps, features = with_features(denoiser, x_t, t)
        exact = derivative(denoiser, x_t, times, alpha_t * (eps - sigma_t * x_t), dt)
    rho = sigma_t / alpha_t
    slope: Tensor = head(x_t, times, eps, features, rho)
    return (rho * (slope - exact)).square().mean()
