r"""The denoising loss (Eq. 5), for people who start without a base model.

    min_theta E || target - network(alpha_t x_0 + sigma_t eps, t) ||^2

with eps, v = alpha_t eps - sigma_t x_0 or x_0 as the target. It made the bundled base model.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mmd_ddm.checkpoint import load_state, save_state
from mmd_ddm.compiling import compile_checked
from mmd_ddm.config import PretrainConfig
from mmd_ddm.data import batches
from mmd_ddm.denoiser import Denoiser
from mmd_ddm.images import from_uint8
from mmd_ddm.rng import generator

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
        on_event: called with ``step=, loss=, images=, seconds=`` every 20 iterations.

    Returns:
        Whether all iterations are done (False: the minutes ran out; call again to go on).
    """
    network = denoiser.network.train()
    fused = denoiser.device.type == "cuda"
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=fused)
    ema = EMAModel(network.parameters(), decay=config.ema_decay, foreach=True)
    start = _resume(checkpoint, network, optimizer, ema)
    if denoiser.device.type == "cuda":
        network.to(memory_format=torch.channels_last)
    forward = compile_checked(denoiser, config.batch_size) if config.compile else network
    began, losses, step = time.monotonic(), [], start
    order = batches(len(pixels), config.batch_size, config.seed, start)
    for step in range(start, config.iterations):
        draw = generator(config.seed, 0, step, "pretrain", denoiser.device)
        x_0 = from_uint8(pixels[next(order).to(pixels.device)])
        if config.flip:
            x_0 = _flip(x_0, draw)
        loss = denoising_loss(denoiser, forward, x_0, draw)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.step()
        ema.step(network.parameters())
        losses.append(loss.detach())
        done, elapsed = step + 1, time.monotonic() - began
        if done % 20 == 0 or done == config.iterations:
            mean = float(torch.stack(losses).mean())
            on_event(step=done, loss=mean, images=done * config.batch_size, seconds=elapsed)
            losses.clear()
        out_of_time = bool(config.minutes) and elapsed > 60 * config.minutes
        if done % config.save_every == 0 or out_of_time:
            save_state(checkpoint, _state(done, network, optimizer, ema))
        if out_of_time:
            return False
    save_state(checkpoint, _state(config.iterations, network, optimizer, ema))
    ema.copy_to(network.parameters())
    network.eval()
    return True


def _flip(x_0: Float[Tensor, "n c h w"], draw: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Mirror each image with probability 1/2."""
    mirrored = torch.rand(len(x_0), generator=draw, device=x_0.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x_0.flip(3), x_0)


def _state(
    step: int, network: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel
) -> dict[str, Any]:
    return {
        "step": step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": ema.state_dict(),
    }


def _resume(
    checkpoint: Path, network: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel
) -> int:
    """Load the state if there is one; the step to go on with."""
    device = next(network.parameters()).device
    state = load_state(checkpoint, device)
    if state is None:
        return 0
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    ema.load_state_dict(state["ema"])
    ema.to(device)
    return int(state["step"])
