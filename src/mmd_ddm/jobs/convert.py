"""A checkpoint of the first codebases as a diffusers folder: what ``mmd-ddm convert`` runs."""

import hashlib
from pathlib import Path

from mmd_ddm.models.convert import convert_checkpoint
from mmd_ddm.models.export import export
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.report import write_base_card
from mmd_ddm.runs.files import alone_at, check_space, check_writable

__all__ = ["convert"]


def convert(
    checkpoint: Path,
    out: Path,
    *,
    image_size: int | None = None,
    heads: int | None = None,
    noise_schedule: str | None = None,
    diffusion_steps: int | None = None,
) -> Denoiser:
    """Write a folder that every verb, and diffusers, loads.

    Args:
        checkpoint: of pytorch_diffusion, ddim or improved-diffusion.
        out: folder for the model; must not exist.
        image_size: pixels a side; by default such that attention begins at 16.
        heads: improved-diffusion's ``--num_heads``; 4 by default.
        noise_schedule: improved-diffusion's, linear or cosine; cosine by default.
        diffusion_steps: T of improved-diffusion's training; 4000 by default.

    Returns:
        The model.

    Raises:
        ValueError: a folder that exists, or a checkpoint of none of these.
    """
    check_writable(out)
    with alone_at(out, "give --out a new folder"):
        if out.exists():
            raise ValueError(f"{out} exists: give --out a new folder")
        denoiser, scheduler_config = convert_checkpoint(
            checkpoint,
            image_size=image_size,
            heads=heads,
            noise_schedule=noise_schedule,
            diffusion_steps=diffusion_steps,
        )
        check_space(out, sum(p.nbytes for p in denoiser.network.parameters()))
        export(denoiser, scheduler_config, None, out)
        with checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        about = {"converted from": checkpoint.name, "sha256 of it": digest}
        if denoiser.notes:
            about["of it"] = "; ".join(denoiser.notes)
        write_base_card(out, checkpoint.stem, about)
    return denoiser
