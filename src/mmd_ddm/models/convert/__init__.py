"""Checkpoints of the first diffusion codebases as networks of diffusers.

A *layout* renames the tensors of one codebase. Channels, layers, levels and attention are read
from the shapes of the renamed ones; what shapes do not tell (heads, schedule) is asked, with the
settings of the released checkpoints as defaults. Files are read with ``weights_only``: no pickled
code is run.

Networks trained at T = 1000 n times that are told t / n (improved-diffusion: t rescaled to 1000)
become networks of 1000 times, every n-th of theirs: the network is asked at whole numbers, and
abar is theirs at those times.

References:
    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, in the PyTorch layout of
        pesser/pytorch_diffusion and ermongroup/ddim.
    Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, Eq. 17 (cosine).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmd_ddm.models.convert import ddpm, foreign, improved
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.models.shipped.unet_equal_heads import EqualHeadsUNet2DModel

__all__ = ["NOISE_SCHEDULES", "convert_checkpoint"]

NOISE_SCHEDULES = ("linear", "cosine")
_T = 1000
# Where training scripts put weights, the averaged ones first; and in front of their names.
_PLACES = (
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema_params",
    "model", "state_dict", "model_state_dict", "params", "net", "network", "unet",
)  # fmt: skip
_PREFIXES = ("ema_model.", "module.", "model.")
_ATTENTION_SIZE = 16  # pixels a side where the released networks first attend


def convert_checkpoint(
    path: Path,
    *,
    image_size: int | None = None,
    heads: int | None = None,
    noise_schedule: str | None = None,
    diffusion_steps: int | None = None,
) -> tuple[Denoiser, dict[str, Any]]:
    """Read a checkpoint of pesser/pytorch_diffusion, ermongroup/ddim or improved-diffusion.

    Of a learned variance nothing is kept: no sampler here uses one.

    Args:
        path: of the file. Where it holds a training state, the averaged weights are taken, and
            the denoiser's notes say which.
        image_size: pixels a side; None takes the one at which attention begins at 16 x 16.
        heads: of every attention; None is 4 for improved-diffusion. Always 1 in the others.
        noise_schedule: one of `NOISE_SCHEDULES`; None is cosine for improved-diffusion. Always
            linear in the others.
        diffusion_steps: T, a multiple of 1000; None is 4000 for improved-diffusion. Always 1000
            in the others.

    Returns:
        The denoiser, and the scheduler config of diffusers that says its schedule.

    Raises:
        ValueError: no such checkpoint, or settings that do not fit it.
    """
    place, state = _read(path)
    asked = {
        "--heads": heads,
        "--noise-schedule": noise_schedule,
        "--diffusion-steps": diffusion_steps,
    }
    if ddpm.matches(state):
        for option, value in asked.items():
            if value is not None:
                raise ValueError(f"{option} {value}: checkpoints of this layout have no choice")
        weights, settings = ddpm.rename(state), dict(ddpm.SETTINGS)
        heads, schedule = 1, _scheduler_config("linear", _T)
    elif improved.matches(state):
        heads = 4 if heads is None else heads
        weights, settings = improved.rename(state, heads), dict(improved.SETTINGS)
        steps = 4 * _T if diffusion_steps is None else diffusion_steps
        schedule = _scheduler_config(noise_schedule or "cosine", steps)
    else:
        raise ValueError(
            f"{path} has {foreign.name_layout(state)}, which is not converted: only "
            "pesser/pytorch_diffusion, ermongroup/ddim and unconditional improved-diffusion are"
        )
    network = _build(path, weights, settings | _architecture(weights), image_size, heads)
    denoiser = UNet2D.around(
        network, schedule | {"clip_sample": False, "prediction_type": "epsilon"}, str(path)
    )
    if place:
        denoiser.notes.append(f"weights: {place}")
    return denoiser, denoiser.scheduler_config


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """What holds the weights in a file, empty if it holds nothing else; and they, unprefixed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many types, and advises to run what it refused
        raise ValueError(
            f"cannot read {path}: damaged, or no weights alone (pickled code is never run)"
        ) from error
    for place, found in _candidates(content):
        if isinstance(found, Mapping) and any(map(torch.is_tensor, found.values())):
            tensors = {str(k): value for k, value in found.items() if torch.is_tensor(value)}
            return place, _without_prefix(tensors)
    raise ValueError(
        f"{path} holds no weights: expected tensors by name, alone, in a list, or under "
        f"{', '.join(_PLACES)}"
    )


def _candidates(content: Any) -> Iterator[tuple[str, Any]]:
    """Where weights may be, the averaged ones first."""
    if isinstance(content, list | tuple):
        # ermongroup/ddim saves [weights, optimiser, epoch, step, averaged weights].
        for number in reversed(range(len(content))):
            yield f"entry {number} of {len(content)}", content[number]
    elif isinstance(content, Mapping):
        for place in _PLACES:
            if isinstance(content.get(place), Mapping):
                yield place, content[place]
        yield "", content


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put in front of every one: DataParallel, Lightning, averages."""
    averaged = {key: value for key, value in weights.items() if key.startswith("ema_model.")}
    weights = averaged or weights
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _architecture(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes say, in the words of `UNet2DModel`."""

    def level(i: int) -> str:
        return f"down_blocks.{i}."

    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in weights)

    levels = next(i for i in range(len(weights)) if not has(level(i)))
    layers = next(i for i in range(len(weights)) if not has(f"{level(0)}resnets.{i}."))
    attends = [has(f"{level(i)}attentions.") for i in range(levels)]
    widths = [len(weights[f"{level(i)}resnets.0.conv1.weight"]) for i in range(levels)]
    shift = len(weights["mid_block.resnets.0.time_emb_proj.weight"]) // widths[-1]
    return {
        "in_channels": weights["conv_in.weight"].shape[1],
        "out_channels": len(weights["conv_out.weight"]),
        "layers_per_block": layers,
        "block_out_channels": widths,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "resnet_time_scale_shift": "scale_shift" if shift == 2 else "default",
    }


def _build(
    path: Path,
    weights: Mapping[str, Tensor],
    settings: dict[str, Any],
    image_size: int | None,
    heads: int,
) -> Any:
    from diffusers import UNet2DModel

    kinds, widths = settings["down_block_types"], settings["block_out_channels"]
    attending = {w for w, kind in zip(widths, kinds, strict=True) if kind == "AttnDownBlock2D"}
    attending.add(widths[-1])  # the middle
    if image_size is None:
        if "AttnDownBlock2D" not in kinds:
            raise ValueError(f"{path} does not tell the size of its images: pass --image-size")
        image_size = _ATTENTION_SIZE << kinds.index("AttnDownBlock2D")
    equal = heads > 1 and len(attending) > 1
    try:
        network = (EqualHeadsUNet2DModel if equal else UNet2DModel)(
            sample_size=image_size,
            attention_head_dim=widths[-1] // heads if heads > 1 else None,
            **settings,
        )
        network.load_state_dict(dict(weights))
    except (RuntimeError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is incomplete, or altered: {detail}") from error
    return network


def _scheduler_config(kind: str, steps: int) -> dict[str, Any]:
    """The schedule of T ``steps``, seen at every (T / 1000)-th."""
    if steps < _T or steps % _T:
        raise ValueError(f"--diffusion-steps must be a multiple of {_T}; got {steps}")
    if kind == "linear":
        if steps == _T:
            return {"num_train_timesteps": _T, "beta_start": 1e-4, "beta_end": 0.02}
        betas = np.linspace(1e-4, 0.02, steps) * _T / steps
    elif kind == "cosine":
        f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    else:
        raise ValueError(f"unknown schedule {kind!r}; choose one of {', '.join(NOISE_SCHEDULES)}")
    abar = np.cumprod(1 - betas)[:: steps // _T]
    return {
        "num_train_timesteps": _T,
        "trained_betas": (1 - abar / np.append(1.0, abar[:-1])).tolist(),
    }
