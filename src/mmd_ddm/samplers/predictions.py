"""What a sampler takes the finished image to be, at every network call along the chain."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.samplers.base import Sampler

__all__ = ["predictions"]


@contextmanager
def predictions(sampler: Sampler) -> Iterator[list[tuple[float, Tensor]]]:
    """Within, each network call adds its time and its prediction of x_0, uint8 [n, c, h, w].

    x_0 = (x_t - sigma_t eps) / alpha_t, clamped as pixels are.
    """
    found: list[tuple[float, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, float | Tensor], eps: Tensor) -> None:
        x_t, t = inputs
        if not isinstance(t, Tensor):  # a tensor is GENIE's, whose answer is a derivative
            found.append((t, to_uint8(sampler.x_0(x_t, eps, t)).cpu()))

    handle = sampler.denoiser.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
