"""A base model from end to end: what ``mmd-ddm pretrain`` runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmd_ddm.config import PretrainConfig
from mmd_ddm.data.images import ImageSet, load_images, say_read
from mmd_ddm.jobs.build import (
    build_device,
    build_network,
    check_channels,
    load_model,
    precision_dtype,
)
from mmd_ddm.jobs.longer import note_longer
from mmd_ddm.jobs.results import Results
from mmd_ddm.models.export import export
from mmd_ddm.models.families.unet2d import CLASSES
from mmd_ddm.models.find import shorten
from mmd_ddm.models.load import denoiser_around
from mmd_ddm.report import write_base_card
from mmd_ddm.runs.files import check_space
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import RunLog, check_folder
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.runs.trackers import check_trackers, tracked
from mmd_ddm.settings import to_mapping
from mmd_ddm.training.pretrain import pretrain as train_network
from mmd_ddm.training.state import disk_bytes

__all__ = ["base_images", "pretrain"]

_BETAS = {"num_train_timesteps": 1000, "clip_sample": False}
_SCHEDULERS: dict[str, dict[str, Any]] = {  # that say what is trained, by objective
    "eps": {**_BETAS, "prediction_type": "epsilon"},
    "v": {**_BETAS, "prediction_type": "v_prediction"},
    "x_0": {**_BETAS, "prediction_type": "sample"},
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000},
    "edm": {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5},
}


def base_images(config: PretrainConfig, progress: Progress = silent) -> ImageSet:
    """The images to train on."""
    size = config.image_size
    shape = (3, size, size) if size else None
    return load_images(config.data, shape, config, labels=config.labels, progress=progress)


def pretrain(
    config: PretrainConfig,
    out: Path,
    *,
    minutes: float = 0,
    trackers: Sequence[str] = (),
    progress: Progress = silent,
) -> Results:
    """Train a denoiser from scratch; the run folder then holds ``model/``. The same call resumes.

    Args:
        config: the settings.
        out: the run folder, new or of the same run.
        minutes: stop after so long; 0 is never.
        trackers: names, see `mmd_ddm.runs.trackers`.
        progress: told what is done.

    Returns:
        The run folder; its record says whether it is ``finished`` (False: the minutes ran out).

    Raises:
        ValueError: whatever cannot be, in one line.
    """
    check_folder(out, "pretrain", to_mapping(config))
    check_trackers(trackers)
    scheduler = _scheduler_of(config.objective)
    limited = replace(config, minutes=minutes or config.minutes)
    device = build_device(config.device)
    images = base_images(config, progress)
    channels, height, width = images.shape
    check_channels(channels, f"{images.source} holds")
    torch.manual_seed(config.seed)
    size, classes = (channels, height, width), images.classes
    network = build_network(config.network, size, len(classes))
    if config.model:
        _begin_with(network, config.model)
    told = {CLASSES: {"names": classes, "null": len(classes)}} if classes else {}
    denoiser = denoiser_around(network, {**scheduler, **told}, "the new model").to(device)
    denoiser.autocast = precision_dtype(config.precision)
    network = denoiser.network
    check_space(out, disk_bytes(network, config.keep))
    record = images.hashes("data")
    settings = to_mapping(replace(config, device=str(device)))
    with RunLog(out, "pretrain", settings, record) as log:
        say_read(progress, images)
        note_longer(log, config.iterations, progress, cosine=True)
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        progress.say(
            f"{len(images):,} images of {height}x{width}, network of {millions:.2f} M on {device}"
        )
        with (
            tracked(trackers, out, to_mapping(config)) as follow,
            progress.bar("denoising loss", config.iterations) as bar,
        ):

            def on_event(**event: Any) -> None:
                log.write(**event)
                follow(**event)
                if event["event"] == "fault":
                    progress.say(event["message"])
                else:
                    bar(done=event["step"], note=f"loss {event['loss']:.4f}")

            checkpoint = out / "checkpoint.pt"
            if not train_network(
                limited, denoiser, images.store, checkpoint, on_event, images.labels
            ):
                return Results({"finished": False}, out)
        export(denoiser, scheduler, None, out / "model", half=True)
        _write_card(out / "model", config, images)
        saved = load_model(str(out / "model")).denoiser.network  # float16 has rounded it
        log.write(event="done", weights_sha256=weights_sha256(saved))
    return Results({"finished": True}, out)


def _scheduler_of(objective: str) -> dict[str, Any]:
    if objective not in _SCHEDULERS:
        raise ValueError(
            f"unknown objective {objective!r}; choose one of {', '.join(_SCHEDULERS)}"
        )
    return _SCHEDULERS[objective]


def _begin_with(network: nn.Module, model: str) -> None:
    """Take the weights of a model, but for those of classes that it does not have.

    Classes that began as none at all, at zero, were not told apart after 200 iterations.
    """
    base = load_model(model, "cpu").denoiser.network.state_dict()
    own = network.state_dict()
    classes = {name: own[name] for name in own if name.startswith("class_embedding.")}
    try:
        network.load_state_dict({**classes, **base})
    except RuntimeError as error:
        raise ValueError(
            f"the network cannot begin with the weights of {model}: {shorten(error)}; give "
            "network the widths and layers of that model"
        ) from error


def _write_card(folder: Path, config: PretrainConfig, images: ImageSet) -> None:
    _, height, width = images.shape
    keys = ("data", "objective", "iterations", "batch_size", "lr", "ema_decay")
    about = {"images": f"{len(images):,} of {height}x{width}"}
    about |= {key: getattr(config, key) for key in keys}
    about |= {"begins with": config.model} if config.model else {}
    about |= {"classes": ", ".join(images.classes)} if images.classes else {}
    write_base_card(folder, "Base model", about, images.source)
