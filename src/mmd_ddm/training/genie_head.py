r"""The distillation of GENIE's head from the exact derivative of a frozen network.

    min_head E (rho_t (head(x_t, t) - d eps / d rho))^2,   x_t = alpha_t x_0 + sigma_t z,

with the derivative along the probability-flow ODE by a Jacobian-vector product, see
`mmd_ddm.samplers.genie`, and t uniform over 0 ... T-1.

References:
    Dockhorn, Vahdat, Kreis, "GENIE: Higher-Order Denoising Diffusion Solvers", 2022, Section 4.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmd_ddm.config import HeadConfig
from mmd_ddm.data.images import batch
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.models.genie_head import GenieHead, derivative, with_features
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.training.loop import Update, train
from mmd_ddm.training.state import TrainingState

__all__ = ["distil", "distillation_loss"]


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
    dt = times.new_tensor([1 / denoiser.schedule.rho_slope(now) for now in t.tolist()])
    with torch.no_grad():
        eps, features = with_features(denoiser, x_t, t)
        exact = derivative(denoiser, x_t, times, alpha_t * (eps - sigma_t * x_t), dt)
    rho = sigma_t / alpha_t
    slope: Tensor = head(x_t, times, eps, features, rho)
    return (rho * (slope - exact)).square().mean()


def distil(
    config: HeadConfig,
    denoiser: Denoiser,
    head: GenieHead,
    pixels: UInt8[Tensor, "n c h w"],
    checkpoint: Path,
    on_event: Callable[..., None],
) -> None:
    """Train the head in place; resumes from ``checkpoint`` if it is there.

    Args:
        config: the settings.
        denoiser: the teacher, which stays as it is.
        head: on its device; holds the averaged weights at the end.
        pixels: the images, on the device.
        checkpoint: file of the training state.
        on_event: called with ``event="train", step=, loss=`` every 10 iterations, with
            ``event="fault", step=, message=`` when one is skipped.

    Raises:
        ValueError: a gradient that stays non-finite, or a state that cannot be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM, once the state is saved.
    """
    state = TrainingState(config, head, checkpoint)

    def loss_at(step: int) -> Tensor:
        draw = generator(config.seed, 0, step, "genie-head", denoiser.device)
        rows = batch(len(pixels), config.batch_size, config.seed, step)
        return distillation_loss(denoiser, head, from_uint8(pixels[rows.to(pixels.device)]), draw)

    def rate_at(step: int) -> float:
        return config.lr * (1 + math.cos(math.pi * step / config.iterations)) / 2

    def after(update: Update) -> None:
        if update.step % 10 == 0 or state.finished:
            on_event(event="train", step=update.step, loss=float(update.loss))

    train(state, loss_at, rate_at, after, on_event)
    state.finish()
