"""How a pipeline of diffusers calls its network, learned by watching it do so once.

Every pipeline hands its network x_t, a time and conditions under names of its own, made from its
prompts or labels by encoders of its own. A recorded call holds them all, so that a chain of ours
can make the same call with another x_t and another time, and no family needs code for them.
"""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.models.shipped.scheduling_few_step import FewStepScheduler

__all__ = ["Call", "arguments_of", "network_of", "record"]

_NETWORKS = ("transformer", "unet")
_SAMPLES = ("hidden_states", "sample")
_SHARED = ("txt_ids", "img_ids")
# What would make a call depend on the size of the picture asked for.
_PLAIN = {"use_resolution_binning": False}
_TIME = 500.0  # of the call that is recorded; any would do


class _Seen(Exception):
    """What stops a pipeline once its network is called; no error."""


class _OneStep(FewStepScheduler):
    """Whatever a pipeline asks for, at one time."""

    given = False  # whether the pipeline gave a list of levels

    def set_timesteps(self, *_: Any, sigmas: Any = None, **__: Any) -> None:
        """See `FewStepScheduler`; pipelines of flows look whether it takes ``sigmas``."""
        self.given = sigmas is not None


@dataclass(frozen=True)
class Call:
    """A call of a network.

    Attributes:
        sample: the name of x_t.
        x: what it was.
        factor: by which the network is told the scheduler's time.
        tensors: all other tensors of the images, by name; those within a mapping as
            ``mapping.name``.
        shared: tensors that are the same for all images.
        gives_levels: whether the pipeline tells its scheduler 1, 1 - 1/K ... 1/K, to be shifted,
            and not K.
    """

    sample: str
    x: Tensor
    factor: float
    tensors: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]
    gives_levels: bool

    @property
    def rows(self) -> int:
        """Of x_t: twice the images where it was guided."""
        return len(self.x)


def network_of(pipeline: Any) -> str:
    """The name of the part that denoises.

    Raises:
        ValueError: there is none that we know of.
    """
    for name in _NETWORKS:
        if pipeline.components.get(name) is not None:
            return name
    raise ValueError(
        f"{type(pipeline).__name__} has no {' or '.join(_NETWORKS)}: no network to finetune"
    )


def arguments_of(pipeline: Any) -> Mapping[str, Any]:
    """The names that the pipeline's call takes."""
    return inspect.signature(type(pipeline).__call__).parameters


@torch.no_grad()
def record(pipeline: Any, asked: Mapping[str, Any]) -> Call:
    """The first call of the network when the pipeline is asked for images.

    The pipeline stops there, and is as it was before.

    Args:
        pipeline: of diffusers.
        asked: of it: prompts or labels, a guidance scale.
    """
    network, scheduler = getattr(pipeline, network_of(pipeline)), pipeline.scheduler
    plain = {k: value for k, value in _PLAIN.items() if k in arguments_of(pipeline)}
    seen: dict[str, Any] = {}

    def look(_: Any, args: Any, named: Any) -> None:
        seen.update(inspect.signature(network.forward).bind(*args, **named).arguments)
        raise _Seen

    hook = network.register_forward_pre_hook(look, with_kwargs=True)
    one = pipeline.scheduler = _OneStep(times=[_TIME], alpha_bars=[0.25])
    before = getattr(pipeline, "_progress_bar_config", {})
    pipeline.set_progress_bar_config(disable=True)
    try:
        with suppress(_Seen), torch.random.fork_rng(devices=[]):
            pipeline(**asked, **plain, num_inference_steps=1)
    finally:
        pipeline.scheduler = scheduler
        pipeline.set_progress_bar_config(**before)
        hook.remove()
    name = next(one for one in _SAMPLES if one in seen)
    x, time = seen.pop(name), seen.pop("timestep")
    told = torch.as_tensor(time).flatten()[0]
    factor = 1.0 if told.is_meta else float(told) / _TIME  # which costs nothing, whatever it is
    tensors: dict[str, Tensor] = {}
    for key, value in seen.items():
        within = value if isinstance(value, dict) else {"": value}
        for inner, tensor in within.items():
            if isinstance(tensor, Tensor):
                tensors[f"{key}.{inner}" if inner else key] = tensor
    shared = {key: tensors.pop(key) for key in _SHARED if key in tensors}
    return Call(name, x, factor, tensors, shared, one.given)
