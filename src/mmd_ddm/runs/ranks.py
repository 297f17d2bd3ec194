"""Several processes that do the work of one, and get its numbers.

Each rank draws its share of the batch; the features of all are gathered, and every rank computes
the whole batch's loss, of which it differentiates its own rows. The sum of their gradients is the
whole gradient: no average, no factor. Noise is named by the image's place in the batch, so that
the number of ranks changes nothing. No wrapper goes around the network, which may therefore be
called, and recomputed, as often as a chain asks. With one process every function here does
nothing.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmd_ddm.runs.launch import gpu, rank, world
from mmd_ddm.runs.patience import waiting

__all__ = [
    "agree", "all_or_none", "any_of", "first_says", "gather", "gather_all", "join", "own",
    "shares", "sum_gradients",
]  # fmt: skip

T = TypeVar("T")

# Between two meetings of the ranks lies at most an evaluation in one feature space.
_PATIENCE = timedelta(minutes=20)


def join(images: int | None = None) -> None:
    """Meet the other ranks that were started, and take the GPU of this one.

    Args:
        images: in the batch they will share; None asks nothing.

    Raises:
        ValueError: more ranks than images, more ranks than GPUs, or nobody to meet.
    """
    if world() == 1:
        return
    if images is not None and world() > images:
        raise ValueError(
            f"{world()} ranks cannot share a batch of {images}: start at most {images}, or give "
            "a larger batch_size"
        )
    gpus = torch.cuda.device_count()
    if gpus:
        if gpu() >= gpus:
            raise ValueError(f"rank {rank()} has no GPU: there are {gpus} here; start as many")
        torch.cuda.set_device(gpu())
    others = f"rank {rank()} is waiting for the others of {world()}, at {_meeting_place()}"
    with waiting(others), _together():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_PATIENCE)
    atexit.register(dist.destroy_process_group)


def _meeting_place() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def shares(n: int, unit: int = 1) -> list[range]:
    """Who does which of n things: contiguous, in the order of the ranks, as equal as can be.

    The first rank, which tells what was done, always has a share.

    Args:
        n: how many.
        unit: a share begins at a multiple of it, so that batches are those of one process.
    """
    parts = -(-n // unit)
    ends = [min(n, unit * -(-parts * r // world())) for r in range(world() + 1)]
    return [range(ends[r], ends[r + 1]) for r in range(world())]


def own(of: Sequence[range]) -> slice:
    """This rank's share, to index with."""
    return slice(of[rank()].start, of[rank()].stop)


def gather(part: Tensor, of: Sequence[range]) -> Tensor:
    """The rows of all ranks in their order; the gradient flows to this rank's own.

    Args:
        part: [k, ...], this rank's rows.
        of: the `shares` they are of.
    """
    return gather_all(lambda: [part], of)[0]


def gather_all(compute: Callable[[], Sequence[Tensor]], of: Sequence[range]) -> list[Tensor]:
    """The same of several tensors, after one vote: whatever takes memory comes before or after.

    Args:
        compute: gives this rank's rows, [k, ...] each.
        of: the `shares` they are of.

    Raises:
        torch.OutOfMemoryError: as in `all_or_none`.
    """
    if world() == 1:
        return list(compute())

    def with_room() -> list[tuple[Tensor, Tensor, list[Tensor]]]:
        found = []
        for part in compute():
            padded = part.new_zeros((max(map(len, of)), *part.shape[1:]))
            padded[: len(part)] = part.detach()
            found.append((part, padded, [torch.empty_like(padded) for _ in of]))
        return found

    own = all_or_none(with_room)
    with _together():
        for _, padded, parts in own:
            dist.all_gather(parts, padded)
    gathered = []
    for part, _, parts in own:
        rows = [p[: len(share)] for p, share in zip(parts, of, strict=True)]
        rows[rank()] = part
        gathered.append(torch.cat(rows))
    return gathered


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every rank the sum of all ranks' gradients.

    Raises:
        torch.OutOfMemoryError: as in `all_or_none`.
    """
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = all_or_none(lambda: torch.cat([g.flatten() for g in gradients]))
    with _together():
        dist.all_reduce(flat)
    for g, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(total.view_as(g))


def all_or_none(compute: Callable[[], T]) -> T:
    """``compute()``, if every rank has the memory for it; all must ask.

    So no rank waits for one that has gone back to try in smaller parts.

    Raises:
        torch.OutOfMemoryError: on every rank, if one ran out of memory, of whatever device.
    """
    found = []
    try:
        found.append(compute())
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
    if any_of(not found):  # outside of the handler, which holds what the failure had taken
        raise torch.OutOfMemoryError("a rank ran out of memory")
    return found[0]


def _out_of_memory(error: Exception) -> bool:
    """GPUs and Python have a type for it, CPUs and some libraries of GPUs a sentence."""
    types = (torch.OutOfMemoryError, MemoryError)
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, types) or any(word in str(error) for word in words)


def any_of(flag: bool) -> bool:
    """Whether any rank says yes; all of them must ask."""
    if world() == 1:
        return flag
    votes = torch.tensor([float(flag)])
    with _together():
        dist.all_reduce(votes)
    return bool(votes)


def first_says(value: Any) -> Any:
    """The first rank's value, everywhere: a plain value, so that all take the same decision."""
    if world() == 1:
        return value
    box = [value]
    with _together():
        dist.broadcast_object_list(box)
    return box[0]


def agree(value: Any, otherwise: str) -> None:
    """Whether this value is the first rank's.

    Raises:
        ValueError: another value, with ``otherwise`` as the message, on every rank.
    """
    if any_of(first_says(value) != value):
        raise ValueError(otherwise)


@contextmanager
def _together() -> Iterator[None]:
    """What torch raises if a rank is gone, in a line."""
    try:
        yield
    except RuntimeError as error:  # each backend has its own kind of it
        raise ValueError(
            f"another of the {world()} ranks has ended or cannot be reached (they meet at "
            f"{_meeting_place()}); the last checkpoint is whole: repeat the command to go on from "
            "it"
        ) from error
