"""What a sampler takes the finished image to be, at every network call along the chain."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler

__all__ = ["predictions"]


@contextmanager
def predictions(sampler: Sampler) -> Iterator[list[tuple[float, Tensor]]]:
    """Within, each network call adds its time and its prediction of x_0, uint8 [n, c, h, w].

    Clamped as pixels are.
    """
    denoiser: Denoiser = sampler.denoiser
    found: list[tuple[float, Tensor]] = []

    def keep(network: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_t, t, *_ = inputs
        if not isinstance(t, Tensor):  # a tensor is GENIE's, whose answer is a derivative
            x_0 = denoiser.pair(x_t, t, output)[0]
            found.append((t, to_uint8(x_0).cpu()))

    handle = denoiser.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
