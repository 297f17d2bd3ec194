r"""The denoising loss (Eq. 5), for people who start without a base model.

    min_theta E || target - network(alpha_t x_0 + sigma_t eps, t) ||^2

with eps, v = alpha_t eps - sigma_t x_0 or x_0 as the target. It made the bundled base model.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mmd_ddm.config import PretrainConfig
from mmd_ddm.data.images import batch
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.models.compile import compile_checked
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.training.loop import Update, train
from mmd_ddm.training.state import TrainingState

__all__ = ["denoising_loss", "learning_rate", "pretrain"]


def denoising_loss(
    denoiser: Denoiser, network: nn.Module, x_0: Float[Tensor, "n c h w"], draw: torch.Generator
) -> Float[Tensor, ""]:
    """Eq. 5 on one batch, t uniform over 0 ... T-1.

    Args:
        denoiser: says what is predicted, with which schedule and precision.
        network: the network to call: the denoiser's own, or its compiled twin.
        x_0: images in [-1, 1].
        draw: of t and eps, on the device of x_0.
    """
    t = torch.randint(len(denoiser.schedule), (len(x_0),), generator=draw, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=draw, device=x_0.device)
    abar = denoiser.schedule.alpha_bar.to(x_0.device)[t][:, None, None, None].to(x_0.dtype)
    alpha_t, sigma_t = abar.sqrt(), (1 - abar).sqrt()
    targets = {"epsilon": eps, "sample": x_0, "v_prediction": alpha_t * eps - sigma_t * x_0}
    with denoiser.precision():
        output = network(alpha_t * x_0 + sigma_t * eps, t)
    prediction = getattr(output, "sample", output).to(x_0.dtype)
    return nn.functional.mse_loss(prediction, targets[denoiser.prediction])


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.iterations - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def pretrain(
    config: PretrainConfig,
    denoiser: Denoiser,
    pixels: UInt8[Tensor, "n c h w"],
    checkpoint: Path,
    on_event: Callable[..., None],
) -> bool:
    """Train the denoiser's network in place; resumes from ``checkpoint`` if it is there.

    Args:
        config: the settings.
        denoiser: holds the averaged weights at the end.
        pixels: the images, on the device.
        checkpoint: file of the training state.
        on_event: called with ``event="train", step=, loss=, images=, seconds=`` every 20
            iterations, with ``event="fault", step=, message=`` when one is skipped.

    Returns:
        Whether all iterations are done (False: the minutes ran out; call again to go on).

    Raises:
        ValueError: a gradient that stays non-finite, or a state that cannot be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM, once the state is saved.
    """
    network = denoiser.network.train()
    if denoiser.device.type == "cuda":
        network.to(memory_format=torch.channels_last)
    state = TrainingState(config, network, checkpoint)
    forward = compile_checked(denoiser, config.batch_size) if config.compile else network
    began, losses = time.monotonic(), []

    def loss_at(step: int) -> Tensor:
        draw = generator(config.seed, 0, step, "pretrain", denoiser.device)
        rows = batch(len(pixels), config.batch_size, config.seed, step)
        x_0 = from_uint8(pixels[rows.to(pixels.device)])
        return denoising_loss(denoiser, forward, _flip(x_0, draw) if config.flip else x_0, draw)

    def after(update: Update) -> bool:
        losses.append(update.loss)
        done, elapsed = update.step, time.monotonic() - began
        if done % 20 == 0 or state.finished:
            on_event(
                event="train",
                step=done,
                loss=sum(losses) / len(losses),
                images=done * config.batch_size,
                seconds=elapsed,
            )
            losses.clear()
        return bool(config.minutes) and elapsed > 60 * config.minutes

    if train(state, loss_at, lambda step: learning_rate(config, step), after, on_event):
        state.finish()
        network.eval()
    return state.finished


def _flip(x_0: Float[Tensor, "n c h w"], draw: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Mirror each image with probability 1/2."""
    mirrored = torch.rand(len(x_0), generator=draw, device=x_0.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x_0.flip(3), x_0)
