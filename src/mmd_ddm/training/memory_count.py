"""Bytes that autograd keeps of one image, counted from the tensors that it saves.

They are the same on every device, also on one without values (`mmd_ddm.models.valueless`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler

__all__ = ["Counts", "call_once", "count", "extract_once", "trained_bytes"]

_MORE = 1.25  # of what a call saves is needed while it runs, on a CPU
_COPIES = 6  # of the weights: gradient, Adam's two, average, best, and the trained ones set aside
_BLOCK = 4 * 4 * 4096  # bytes an image of kernel values, four matrices of float32 at once


@dataclass(frozen=True)
class Counts:
    """Bytes that autograd keeps of one image, and the calls of a chain.

    Attributes:
        calls: network calls.
        trained_calls: those of them that take a gradient.
        image: in a chain whose calls are recomputed, with its noise and kernel values.
        call: in a network call.
        extract: in the extractors.
        decode: in the decoder of latents.
        most: in the largest of these three while it is computed again; of what is recomputed block
            by block, with the largest block.
    """

    calls: int
    trained_calls: int
    image: int
    call: int
    extract: int
    decode: int
    most: int

    @property
    def work(self) -> int:
        """What the largest of them takes while it runs."""
        return int(_MORE * self.most)


def trained_bytes(denoiser: Denoiser) -> int:
    """For gradients, optimiser and averages of what is trained."""
    return _COPIES * sum(p.nbytes for p in denoiser.network.parameters() if p.requires_grad)


def count(
    sampler: Sampler, phis: Sequence[FeatureExtractor], like: Counts | None = None
) -> Counts:
    """Count what a step keeps, on any device.

    Args:
        sampler: the chain.
        phis: what is optimised in.
        like: of the same chain and extractors, of other weights: only call and decode are counted.
    """
    denoiser = sampler.denoiser
    x = torch.randn((3, *denoiser.latent_shape), device=denoiser.device)
    saved = partial(_saved, denoiser)
    like = like or _count_chain(sampler, phis, x)
    call, calling = saved(lambda m: call_once(sampler, x[:m]))
    decode, decoding = saved(lambda m: denoiser.to_loss(x[:m].requires_grad_(), keep=True))
    most = max(calling, decoding, like.extract)
    return replace(like, call=call, decode=decode, most=most)


def _count_chain(sampler: Sampler, phis: Sequence[FeatureExtractor], x: Tensor) -> Counts:
    """All but call and decode."""
    denoiser = sampler.denoiser
    pixels = torch.randn((3, *denoiser.shape), device=denoiser.device)

    def walk(m: int) -> Tensor:
        z = x[:m].expand(sampler.draws, *x[:m].shape)[1:] if sampler.stochastic else None
        x_0: Tensor = sampler(x[:m].clone().requires_grad_(), z, denoiser.conditions(range(m)))
        return x_0

    before, sampler.recompute = sampler.recompute, True
    latents, _ = _saved(denoiser, walk)
    sampler.recompute = before
    extract, _ = _saved(denoiser, lambda m: extract_once(phis, pixels[:m].requires_grad_()))
    image = latents + (sampler.draws - 1) * x[0].nbytes + _BLOCK
    return Counts(sampler.nfe, sampler.trained_calls, image, 0, extract, 0, 0)


def call_once(sampler: Sampler, x: Tensor) -> Tensor:
    """Of the network, in the middle of the chain."""
    denoiser, t = sampler.denoiser, float(sampler.times[len(sampler.times) // 2])
    return denoiser.eps(x.requires_grad_(), t, denoiser.conditions(range(len(x))))


def extract_once(phis: Sequence[FeatureExtractor], images: Tensor) -> Tensor:
    """Of the extractors: what they say, side by side."""
    return torch.cat([phi(images) for phi in phis] or [images.flatten(1)], 1)


def _saved(denoiser: Denoiser, job: Callable[[int], Tensor]) -> tuple[int, int]:
    """Bytes that autograd saves for the backward pass of one image more, every storage once.

    Where blocks are computed again, these are what goes into them; the second number counts the
    largest of them, too.
    """

    def of(m: int) -> tuple[int, int]:
        kept: dict[int, Any] = {}
        largest = 0

        def block(function: Callable[..., Any], *inputs: Any) -> Any:
            nonlocal largest
            own: dict[int, Any] = {}
            for tensor in inputs:
                if isinstance(tensor, Tensor):
                    _note(kept, tensor)
            with torch.autograd.graph.saved_tensors_hooks(partial(_note, own), lambda t: t):
                output = function(*inputs)
            largest = max(largest, _size(own))
            return output

        if denoiser.blocks_again:
            denoiser.recompute_blocks(block)
        hooks = torch.autograd.graph.saved_tensors_hooks(partial(_note, kept), lambda t: t)
        with torch.enable_grad(), hooks:
            output = job(m)
        held = _size(kept) if output.requires_grad else 0
        return held, held + largest

    # Of one image, some layouts are each other's, and nothing is copied.
    (kept, most), (less, least) = of(3), of(2)
    return kept - less, most - least


def _note(storages: dict[int, Any], tensor: Tensor) -> Tensor:
    """Held, so that no other takes its place."""
    try:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
    except RuntimeError:  # a dual number has no storage of its own
        storages[id(tensor)] = tensor
    return tensor


def _size(storages: dict[int, Any]) -> int:
    return sum(
        one.nbytes if isinstance(one, Tensor) else one.nbytes() for one in storages.values()
    )
