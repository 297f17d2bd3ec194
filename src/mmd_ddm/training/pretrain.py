"""Training from scratch, for people who start without a base model; it made the bundled one."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mmd_ddm.config import PretrainConfig
from mmd_ddm.data.images import batch
from mmd_ddm.data.stored import Stored
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.models.compile import compile_checked
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.training.loop import Update, train
from mmd_ddm.training.losses.denoising import denoising_loss, mirrored_half
from mmd_ddm.training.state import TrainingState

__all__ = ["learning_rate", "pretrain"]


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.iterations - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def pretrain(
    config: PretrainConfig,
    denoiser: Denoiser,
    pixels: UInt8[Tensor, "n c h w"] | Stored,
    checkpoint: Path,
    on_event: Callable[..., None],
    labels: Int64[Tensor, " n"] | None = None,
) -> bool:
    """Train the denoiser's network in place; resumes from ``checkpoint`` if it is there.

    Args:
        config: the settings.
        denoiser: holds the averaged weights at the end.
        pixels: the images.
        checkpoint: file of the training state.
        on_event: called with ``event="train", step=, loss=, images=, seconds=`` every 20
            iterations, with ``event="fault", step=, message=`` when one is skipped.
        labels: the classes of the images, for a class-conditional network.

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
        x_0 = from_uint8(pixels[rows].to(denoiser.device))
        shown = None if labels is None else _shown(config, denoiser, labels[rows], step)
        return denoising_loss(
            denoiser, forward, mirrored_half(x_0, draw) if config.flip else x_0, draw, shown
        )

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


def _shown(
    config: PretrainConfig, denoiser: Denoiser, labels: Int64[Tensor, " n"], step: int
) -> Condition:
    """The classes of a batch, some of them as the label that means none."""
    draw = generator(config.seed, 0, step, "label dropout")
    dropped = torch.rand(len(labels), generator=draw) < config.label_dropout
    shown = labels.masked_fill(dropped, len(denoiser.classes))
    return Condition.of_labels(shown).to(denoiser.device)
