"""Which family reads a model."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers

from mmd_ddm.models.families.edm import EDMUNet2D
from mmd_ddm.models.families.flow import FlowUNet2D
from mmd_ddm.models.families.stock import Stock
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.find import read_index
from mmd_ddm.models.parts import config_of, quiet, read_scheduler_config
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.models.scheduler_config import SchedulerConfig

__all__ = ["FAMILIES", "denoiser_around", "is_stock", "load_denoiser"]

FAMILIES: tuple[type[UNet2D], ...] = (UNet2D, FlowUNet2D, EDMUNet2D)


def is_stock(source: str | Path) -> bool:
    """Whether a folder or hub id holds a pipeline that `Stock` reads."""
    return str(read_index(source).get("_class_name")) in Stock.pipelines


def load_denoiser(source: str | Path | Any) -> Denoiser:
    """A model by its folder or hub id, or a live diffusers pipeline, which stays as it is.

    What its scheduler says of the network names the family, and the class of the pipeline must be
    one that draws with such a network.

    Raises:
        ValueError: it is no model of any family.
        OSError: nothing there, or no network to fetch it with.
    """
    named = isinstance(source, str | Path)
    with quiet():
        kind = str(read_index(source).get("_class_name")) if named else type(source).__name__
        if kind in Stock.pipelines:
            return Stock.from_pretrained(source) if named else Stock.from_pipeline(source)
        family = _family(source, named)
        _check_pipeline(str(source) if named else kind, kind, family)
        return family.from_pretrained(source) if named else family.from_pipeline(source)


def denoiser_around(network: Any, scheduler: Mapping[str, Any], name: str) -> UNet2D:
    """A copy of a network with the process of a scheduler's config, whose family reads it.

    Args:
        network: a `UNet2DModel`.
        scheduler: the config.
        name: of the model, for errors.
    """
    return _family_of(scheduler).around(network, scheduler, name)


def _family_of(scheduler: Mapping[str, Any]) -> type[UNet2D]:
    said = SchedulerConfig.read(scheduler).prediction
    return next((one for one in FAMILIES if said in one.predictions), UNet2D)


def _family(source: Any, named: bool) -> type[UNet2D]:
    """By what the network says; what has no scheduler, `UNet2D` refuses in its own words."""
    with suppress(ValueError, OSError, AttributeError):
        return _family_of(
            read_scheduler_config(source)[0] if named else config_of(source.scheduler)
        )
    return UNet2D


def _check_pipeline(name: str, kind: str, family: type[UNet2D]) -> None:
    """Early models say no class, and a person may have one of their own."""
    served = [*(pipeline for one in FAMILIES for pipeline in one.pipelines), *Stock.pipelines]
    if kind not in served and hasattr(diffusers, kind):
        raise ValueError(
            f"{name} is a {kind}, which is not supported; supported are "
            f"{', '.join(dict.fromkeys(served))}"
        )
    if kind in served and kind not in family.pipelines:
        raise ValueError(
            f"{name} is a {kind} whose scheduler is for {' or '.join(family.pipelines)}: "
            "diffusers would draw with another scheduler, or tell the network something else"
        )
