"""GENIE's head, which the sampler of that name needs, distilled once: ``mmd-ddm genie-head``."""

from dataclasses import replace
from typing import Any

import torch

from mmd_ddm.config import HeadConfig
from mmd_ddm.data.images import load_images, say_read
from mmd_ddm.jobs.build import Model, load_model, say_notes
from mmd_ddm.jobs.longer import note_longer
from mmd_ddm.jobs.results import Results
from mmd_ddm.models.genie_head import GenieHead, head_folder
from mmd_ddm.runs.files import check_space, check_writable
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import OutputError, RunLog
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.settings import to_mapping
from mmd_ddm.training.genie_head import distil
from mmd_ddm.training.state import disk_bytes

__all__ = ["distil_head"]


def distil_head(model: str | Model, config: HeadConfig, *, progress: Progress = silent) -> Results:
    """Distil the exact derivative of a model into a small head. The same call resumes.

    Args:
        model: that is in a folder; its network stays as it is.
        config: the settings.
        progress: told what is done.

    Returns:
        The folder in the model's, which holds the head and the run.

    Raises:
        ValueError: a model that is in no folder, or a head that was made otherwise.
    """
    denoiser = load_model(model, config.device).denoiser
    say_notes(denoiser, progress)
    folder, weights = head_folder(denoiser.source), weights_sha256(denoiser.network)
    check_writable(folder)
    images = load_images(config.data, denoiser.shape, config, progress=progress)
    say_read(progress, images)
    inputs = {"data_sha256": images.sha256, "model_sha256": denoiser.sha256}
    layer: Any = denoiser.network.conv_norm_out
    torch.manual_seed(config.seed)
    head = GenieHead(denoiser.shape[0], layer.num_channels, layer.num_groups).to(denoiser.device)
    check_space(folder, disk_bytes(head, config.keep))
    settings = to_mapping(replace(config, device=str(denoiser.device)))
    try:
        with (
            RunLog(folder, "genie-head", settings, inputs) as log,
            progress.bar("derivative", config.iterations) as bar,
        ):
            note_longer(log, config.iterations, progress, cosine=True)

            def on_event(**event: Any) -> None:
                log.write(**event)
                if event["event"] == "fault":
                    progress.say(event["message"])
                else:
                    bar(done=event["step"], note=f"error {event['loss']:.4f}")

            distil(config, denoiser, head, images.store, folder / "checkpoint.pt", on_event)
            head.save(denoiser.source, weights, denoiser.sha256)
    except OutputError as error:
        raise ValueError(f"{error} (here: delete {folder})") from error
    return Results({"weights_sha256": weights}, folder)
