"""The methods of finetuning, by name: a file each in this folder, docs/methods.md for people."""

from collections.abc import Callable

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.training.losses.base import Loss, Source
from mmd_ddm.training.losses.mmd import MMD

__all__ = ["METHODS", "make_loss"]

METHODS: dict[str, Callable[[FinetuneConfig, Source], Loss]] = {"mmd": MMD}


def make_loss(config: FinetuneConfig, source: Source) -> Loss:
    """The loss of ``config.method``."""
    return METHODS[config.method](config, source)
