"""The whole training state in and out, and the finished model as an ordinary diffusers folder.

A state is written to a temporary name, synced and renamed, so that a crash leaves either the old
file or the new one. It is read with ``weights_only``: no pickled code is run.
"""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mmd_ddm import scheduling_few_step, unet_equal_heads
from mmd_ddm.denoiser import Denoiser
from mmd_ddm.fingerprint import weights_sha256
from mmd_ddm.gamma import gamma_file
from mmd_ddm.runlog import atomic_write, write_json

__all__ = ["export", "load_state", "save_state"]

_MAX_SHARD = "15MB"
_TRAINING = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"
)  # fmt: skip
_DDIM_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")


def save_state(path: Path, state: Mapping[str, Any], keep: int = 1) -> None:
    """Write nested mappings of tensors and plain values.

    Args:
        path: of the newest state, ``checkpoint.pt``; older ones become ``checkpoint.1.pt``,
            ``checkpoint.2.pt`` ... once the new one is written.
        state: what to write.
        keep: how many to keep, the newest included.

    Raises:
        OSError: a full disk, a folder that cannot be written; what was there is still there.
    """
    with atomic_write(path) as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # what torch makes of a failed write
            raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
        for age in reversed(range(keep - 1)):
            if _aged(path, age).exists():
                _aged(path, age).replace(_aged(path, age + 1))


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read the newest state that `save_state` wrote there; None if there is none.

    Raises:
        ValueError: the file is damaged or no such state.
    """
    older = sorted(path.parent.glob(f"{path.stem}.[0-9]*{path.suffix}"), key=_age)
    newest = next((file for file in (path, *older) if file.is_file()), None)
    if newest is None:
        return None
    try:
        return dict(torch.load(newest, map_location=device, weights_only=True))
    except Exception as error:  # torch raises many types, and advises to run what it refused
        raise ValueError(
            f"cannot resume from {newest}: it is damaged or no training state (pickled code is "
            "never run); remove it to go on from an older one or from the start"
        ) from error


def _aged(path: Path, age: int) -> Path:
    return path.with_name(f"{path.stem}.{age}{path.suffix}") if age else path


def _age(path: Path) -> int:
    return int(path.stem.rpartition(".")[2])


def export(
    denoiser: Denoiser,
    scheduler_config: Mapping[str, Any],
    chain: Mapping[str, Any] | None,
    folder: Path,
    *,
    half: bool = False,
) -> None:
    """Write a folder that ``DiffusionPipeline.from_pretrained`` loads.

    A deterministic DDIM chain on times T // K apart (leading, midpoint, and trailing where K
    divides T) is held by diffusers' own `DDIMScheduler`. Any other chain gets `FewStepScheduler`
    beside the weights, which refuses every other number of steps and every sampler but DDIM: no
    folder is written that would silently sample on another grid. A network of no stock class
    brings its class along, an analytic sampler its Gamma, and GENIE its head.

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
    stock = _stock_scheduler(scheduler_config, chain, len(denoiser.schedule))
    if stock is not None:
        pipeline = DDIMPipeline(network, stock)
    elif chain is not None:
        pipeline = DDPMPipeline(network, _few_step_scheduler(denoiser, scheduler_config, chain))
    if chain is not None:
        pipeline.scheduler.register_to_config(_mmd_ddm=dict(chain))
    pipeline.save_pretrained(temporary, max_shard_size=_MAX_SHARD)
    if isinstance(pipeline, DDPMPipeline):
        _ship(temporary, "scheduler", scheduling_few_step, "FewStepScheduler")
    if isinstance(network, unet_equal_heads.EqualHeadsUNet2DModel):
        _ship(temporary, "unet", unet_equal_heads, "EqualHeadsUNet2DModel")
    if chain is not None and chain["sampler"].startswith("analytic"):
        gamma = denoiser.gamma.for_finetuned(weights_sha256(network))
        gamma.save(gamma_file(temporary))
    if chain is not None and chain["sampler"] == "genie-head":
        denoiser.head.save(temporary, weights_sha256(network))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _stock_scheduler(
    config: Mapping[str, Any], chain: Mapping[str, Any] | None, num_train_timesteps: int
) -> Any:
    """The stock DDIMScheduler if it walks this chain's times, or if there are none; else None.

    It steps by T // K whatever its list of times says, from any offset that is less.
    """
    from diffusers import DDIMScheduler

    if chain is None:
        return DDIMScheduler.from_config(dict(config))
    betas = config.get("beta_schedule", "linear")
    if chain["sampler"] != "ddim" or chain["eta"] != 0 or betas not in _DDIM_BETAS:
        return None
    times = list(chain["times"])
    stride, offset = num_train_timesteps // len(times), times[-1]
    if not (offset < stride and float(offset).is_integer()):
        return None
    if times != [offset + i * stride for i in reversed(range(len(times)))]:
        return None
    return DDIMScheduler.from_config(
        dict(config),
        clip_sample=chain["clip"],
        clip_sample_range=1.0,
        timestep_spacing="leading",
        steps_offset=int(offset),
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


def _ship(folder: Path, part: str, module: ModuleType, name: str) -> None:
    """Put the source of a part's class beside its config and name it in model_index.json."""
    source = Path(str(module.__file__))
    shutil.copy(source, folder / part / source.name)
    index = folder / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content[part] = [source.stem, name]
    write_json(index, content)
