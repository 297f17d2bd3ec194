"""Which of several processes this is, as torchrun says it in the environment. No torch here.

A *rank* is one of the processes that finetune together. The first one writes and prints.
"""

import os
import sys

__all__ = ["is_first", "local_rank", "rank", "speaks", "world"]


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """The number of this process on its machine: that of its GPU, too."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def speaks() -> bool:
    """Whether this process says what went wrong.

    Until they have joined, all of them read the same command: one voice is enough. Afterwards an
    error may be of one rank alone.
    """
    distributed = sys.modules.get("torch.distributed")
    return is_first() or (distributed is not None and distributed.is_initialized())
