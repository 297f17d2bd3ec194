"""One call that keeps its inputs alone, and is made again in the backward pass.

`torch.utils.checkpoint` without reentrance keeps the graph of the call, hundreds of small objects
that lie between the activations on the heap. glibc then finds no place for the next call's
activations where the last one's were, and the process grows with every call as if some of them
were kept. Here the first call makes no graph. (With reentrance it makes none either, but then
``torch.autograd.grad`` is refused.)
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

__all__ = ["recomputed"]

T = TypeVar("T")
_SAVED = object()  # in the place of a tensor


def recomputed(function: Callable[..., T], inputs: Iterable[Any], weights: Iterable[Tensor]) -> T:
    """``function(*inputs)``, a tensor or several.

    Args:
        function: draws the same random numbers again.
        inputs: tensors, with gradient or without, and others.
        weights: the tensors beside the inputs that take a gradient.
    """
    inputs = tuple(inputs)
    output: T = _Recomputed.apply(function, len(inputs), *inputs, *weights)
    return output


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], count: int, *values: Any) -> Any:
        inputs, ctx.weights = values[:count], values[count:]
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.others = [_SAVED if isinstance(value, Tensor) else value for value in inputs]
        ctx.function = function
        ctx.random = torch.get_rng_state(), *get_device_states(*tensors)
        return function(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, needs = iter(ctx.saved_tensors), ctx.needs_input_grad[2:]
        inputs = [
            next(saved).detach().requires_grad_(need) if other is _SAVED else other
            for other, need in zip(ctx.others, needs, strict=False)
        ]
        on_cpu, devices, on_devices = ctx.random
        with torch.enable_grad(), torch.random.fork_rng(devices):
            torch.set_rng_state(on_cpu)
            set_device_states(devices, on_devices)
            # Views, for torch's module hooks (its FLOP counter's) refuse leaves here.
            output = ctx.function(*(v.view_as(v) if isinstance(v, Tensor) else v for v in inputs))
        outputs = (output,) if isinstance(output, Tensor) else output
        pairs = ((o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad)
        outputs, gradients = zip(*pairs, strict=True)
        wanted = [v for v, need in zip((*inputs, *ctx.weights), needs, strict=True) if need]
        found = iter(torch.autograd.grad(outputs, wanted, gradients, allow_unused=True))
        return None, None, *(next(found) if need else None for need in needs)
