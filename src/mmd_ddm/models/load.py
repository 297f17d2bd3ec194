"""Which family reads a model."""

from pathlib import Path
from typing import Any

from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.find import read_index
from mmd_ddm.models.parts import quiet
from mmd_ddm.models.protocol import Denoiser

__all__ = ["FAMILIES", "load_denoiser"]

# By the class of the diffusers pipeline.
FAMILIES = {"DDIMPipeline": UNet2D, "DDPMPipeline": UNet2D}


def load_denoiser(source: str | Path | Any) -> Denoiser:
    """A model by its folder or hub id, or a live diffusers pipeline, which stays as it is.

    Raises:
        ValueError: it is no model of any family.
        OSError: nothing there, or no network to fetch it with.
    """
    named = isinstance(source, str | Path)
    kind = read_index(source).get("_class_name") if named else type(source).__name__
    family = FAMILIES.get(str(kind), UNet2D)  # early models say nothing; others it refuses
    with quiet():
        return family.from_pretrained(source) if named else family.from_pipeline(source)
