"""The distillation of GENIE's head: the one loop on the loss of `losses.derivative`."""

import math
from collections.abc import Callable
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from mmd_ddm.config import HeadConfig
from mmd_ddm.data.images import batch
from mmd_ddm.data.stored import Stored
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.models.genie_head import GenieHead
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.training.loop import Update, train
from mmd_ddm.training.losses.derivative import distillation_loss
from mmd_ddm.training.state import TrainingState

__all__ = ["distil"]


def distil(
    config: HeadConfig,
    denoiser: Denoiser,
    head: GenieHead,
    pixels: UInt8[Tensor, "n c h w"] | Stored,
    checkpoint: Path,
    on_event: Callable[..., None],
) -> None:
    """Train the head in place; resumes from ``checkpoint`` if it is there.

    Args:
        config: the settings.
        denoiser: the teacher, which stays as it is.
        head: on its device; holds the averaged weights at the end.
        pixels: the images.
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
        x_0 = from_uint8(pixels[rows].to(denoiser.device))
        return distillation_loss(denoiser, head, x_0, draw)

    def rate_at(step: int) -> float:
        return config.lr * (1 + math.cos(math.pi * step / config.iterations)) / 2

    def after(update: Update) -> None:
        if update.step % 10 == 0 or state.finished:
            on_event(event="train", step=update.step, loss=float(update.loss))

    train(state, loss_at, rate_at, after, on_event)
    state.finish()
