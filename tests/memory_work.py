"""Memory that runs out on one rank, once: python memory_work.py, one process a rank.

In a single process `tried` does the same, and gives what the ranks must agree with.
"""

import itertools
import pkgutil
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
from rank_work import BATCH, CONFIG, make

from mmd_ddm.runs import ranks
from mmd_ddm.runs.launch import rank
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.state import TrainingState

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
)
GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
# Where: a function, and which call of it in an iteration over two spaces; how.
PLACES = {
    "nowhere": ("mmd_ddm.training.losses.mmd.mmd2", 99, GPU),
    "first space, of a CPU": ("mmd_ddm.training.losses.mmd._features", 1, CPU),
    "last space": ("mmd_ddm.training.losses.mmd._features", 2, GPU),
    "room for the other's rows": ("torch.empty_like", 3, GPU),
    "between the spaces": ("mmd_ddm.training.losses.mmd.mmd2", 1, GPU),
    "after the last space": ("mmd_ddm.training.losses.mmd.mmd2", 2, MemoryError()),
    "backward": ("torch.Tensor.backward", 1, CPU),
    "the sum of the gradients": ("torch.Tensor.flatten", 3, GPU),
}


def failing(target, at, error):
    """A patch of a function that fails at one call, and never again."""
    real, calls = pkgutil.resolve_name(target), itertools.count(1)

    def called(*args, **options):
        if next(calls) == at:
            raise error
        return real(*args, **options)

    return mock.patch(target, called)


def tried(place, fails):
    """Attempts, loss and gradient of an iteration; it may fail at the place."""
    sampler, objective, _ = make()
    network = sampler.denoiser.network
    state = TrainingState(CONFIG, network, Path("nothing-saved.pt"))
    x_T = torch.randn((BATCH, 1, 8, 8), generator=torch.Generator().manual_seed(2))
    with failing(*PLACES[place]) if fails else nullcontext():
        attempts, loss = 0, None
        while loss is None and attempts < 4:
            attempts += 1
            loss = state.differentiate(lambda: mmd_step(sampler, [objective] * 2, x_T))
    gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    return attempts, float(loss.detach()), float(gradient.norm())


def main():
    torch.set_num_threads(1)
    ranks._PATIENCE = timedelta(seconds=30)
    ranks.join(BATCH)
    for place in PLACES:
        print(place, *tried(place, fails=rank() == 1), sep="|", flush=True)


if __name__ == "__main__":
    sys.exit(main())
