"""Modules on the meta device: all of a computation but its values, which would take memory."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Valueless", "without_values"]

T = TypeVar("T", bound=nn.Module)


class Valueless(TorchFunctionMode):
    """Within, what is asked of values is answered without them.

    Conditions hold: that a mask hides nothing, for instance. Attention keeps for a backward pass
    what fused kernels keep, where the meta device would keep every pair of tokens.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        named = kwargs or {}
        if func is Tensor.__bool__ and args[0].is_meta:
            return True
        if func is nn.functional.scaled_dot_product_attention:
            told = dict(zip(("query", "key", "value"), args, strict=False)) | named
            if told["query"].is_meta:
                return _Attention.apply(told["query"], told["key"], told["value"])
        return func(*args, **named)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, output)
        return output


def without_values(module: T) -> T:
    """A copy of a module, of which a denoiser's live pipeline is no part, on the meta device."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo |= {id(live): live for live in [getattr(part, "_live", None)] if live is not None}
        for p in part.parameters(recurse=False):
            memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for b in part.buffers(recurse=False):
            memo[id(b)] = torch.empty_like(b, device="meta")
    return deepcopy(module, memo)
