"""The whole training state in and out, and the finished model as an ordinary diffusers folder.

A state is written to a temporary name, synced and renamed, so that a crash leaves either the old
file or the new one. It is read with ``weights_only``: nothing is unpickled.
"""

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmd_ddm import scheduling_few_step
from mmd_ddm.denoiser import Denoiser
from mmd_ddm.fingerprint import weights_sha256
from mmd_ddm.gamma import gamma_file
from mmd_ddm.runlog import write_json
from mmd_ddm.schedules import select_times

__all__ = ["export", "load_state", "save_state"]

_MAX_SHARD = "15MB"
_TRAINING = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"
)  # fmt: skip
_DDIM_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested mappings of tensors and plain values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if there is nothing.

    Raises:
        ValueError: the file is damaged or no such state.
    """
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise ValueError(f"cannot resume from {path}: {error}") from error


def export(
    denoiser: Denoiser,
    scheduler_config: Mapping[str, Any],
    chain: Mapping[str, Any] | None,
    folder: Path,
    *,
    half: bool = False,
) -> None:
    """Write a folder that ``DiffusionPipeline.from_pretrained`` loads.

    A deterministic DDIM chain on leading times, or on trailing ones where K divides T, is held by
    diffusers' own `DDIMScheduler`. Any other chain gets `FewStepScheduler` beside the weights,
    which refuses every other number of steps and every sampler but DDIM: no folder is written
    that would silently sample on another grid. The Gamma of an analytic sampler comes along.

    Args:
        denoiser: its network is written as it is.
        scheduler_config: of the base model.
        chain: the chain it was finetuned for, ``ChainConfig`` with its ``times`` filled in; kept
            in ``scheduler_config.json`` under the key ``_mmd_ddm``. None for a base model.
        folder: replaced once the new one is complete.
        half: write float16 weights.
    """
    from diffusers import DDIMPipeline, DDPMPipeline

    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    network = copy.deepcopy(denoiser.network).half() if half else denoiser.network
    if chain is None or _stock(chain, scheduler_config, len(denoiser.schedule)):
        pipeline = DDIMPipeline(network, _stock_scheduler(scheduler_config, chain))
    else:
        pipeline = DDPMPipeline(network, _few_step_scheduler(denoiser, scheduler_config, chain))
    if chain is not None:
        pipeline.scheduler.register_to_config(_mmd_ddm=dict(chain))
    pipeline.save_pretrained(temporary, max_shard_size=_MAX_SHARD)
    if isinstance(pipeline, DDPMPipeline):
        _ship_scheduler(temporary)
    if chain is not None and chain["sampler"].startswith("analytic"):
        gamma = denoiser.gamma.for_finetuned(weights_sha256(network))
        gamma.save(gamma_file(temporary))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _stock(chain: Mapping[str, Any], config: Mapping[str, Any], num_train_timesteps: int) -> bool:
    """Whether diffusers' DDIMScheduler walks this chain's times, and steps right between them."""
    if config.get("beta_schedule", "linear") not in _DDIM_BETAS:
        return False
    steps = len(chain["times"])
    spacing = next(
        (
            name
            for name in ("leading", "trailing")
            if list(select_times(name, steps, num_train_timesteps)) == list(chain["times"])
        ),
        None,
    )
    divides = spacing == "leading" or num_train_timesteps % steps == 0
    return chain["sampler"] == "ddim" and chain["eta"] == 0 and spacing is not None and divides


def _stock_scheduler(config: Mapping[str, Any], chain: Mapping[str, Any] | None) -> Any:
    from diffusers import DDIMScheduler

    if chain is None:
        return DDIMScheduler.from_config(dict(config))
    leading = chain["times"][-1] == 0
    return DDIMScheduler.from_config(
        dict(config),
        clip_sample=chain["clip"],
        clip_sample_range=1.0,
        timestep_spacing="leading" if leading else "trailing",
        steps_offset=0,
        set_alpha_to_one=True,
        thresholding=False,
    )


def _few_step_scheduler(
    denoiser: Denoiser, config: Mapping[str, Any], chain: Mapping[str, Any]
) -> scheduling_few_step.FewStepScheduler:
    scheduler = scheduling_few_step.FewStepScheduler(
        times=list(chain["times"]),
        alpha_bars=[denoiser.schedule.abar(t) for t in chain["times"]],
        prediction_type=denoiser.prediction,
        sampler="ddim" if chain["eta"] == 0 else "stochastic ddim",
        clip_sample=chain["clip"],
        **{key: config[key] for key in _TRAINING if key in config},
    )
    if chain["sampler"] != "ddim":
        scheduler.register_to_config(sampler=chain["sampler"])
    return scheduler


def _ship_scheduler(folder: Path) -> None:
    """Put the scheduler's source beside its config and name it in model_index.json."""
    source = Path(scheduling_few_step.__file__)
    shutil.copy(source, folder / "scheduler" / source.name)
    index = folder / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["scheduler"] = [source.stem, "FewStepScheduler"]
    write_json(index, content)
