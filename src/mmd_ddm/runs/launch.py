"""Which of several processes this is, as its launcher says it in the environment. No torch here.

A *rank* is one of the processes that finetune together. The first one writes and prints. torchrun
and accelerate name it in `NAMES`; of a task of srun or mpirun `check_launch` makes these from
theirs.
"""

import os
import re
import sys

__all__ = [
    "NAMES", "check_launch", "check_shared", "gpu", "is_first", "local_rank", "local_world",
    "rank", "speaks", "world",
]  # fmt: skip

_SHARED = ("finetune", "sample", "evaluate")  # verbs
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_TASKS = "SLURM_STEP_TASKS_PER_NODE"  # 8(x2),4
# What else says it: SLURM (within a step alone), Open MPI, and MPICH with its kin.
_AS = tuple(
    dict(zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), theirs, strict=True))
    for theirs in (
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    )
)
_DIGITS, _PORTS = 9, 65535


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK") or 0 if world() > 1 else 0


def world() -> int:
    """How many there are."""
    return _number("WORLD_SIZE") or 1


def local_rank() -> int:
    """The number of this process on its machine."""
    return _number("LOCAL_RANK") or 0 if world() > 1 else 0


def local_world() -> int:
    """How many there are on this machine, as far as is known."""
    return _number("LOCAL_WORLD_SIZE") or 1


def gpu() -> int:
    """Which of the GPUs that this process sees is its own."""
    return 0 if os.environ.get("SLURM_GPUS_PER_TASK") == "1" else local_rank()


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


def check_launch() -> None:
    """Whether the launcher has said all that it must; other launchers' words become torchrun's.

    Raises:
        ValueError: a variable that is missing, or no number that it can be.
    """
    given = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
    if not {"RANK", "WORLD_SIZE"} & given.keys():
        given = {**_of_others(), **given}
        os.environ.update(given)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        _check_number(name, given.get(name, ""))
    size, place = int(given.get("WORLD_SIZE", 1)), int(given.get("RANK", 0))
    if place >= size:
        told = f"WORLD_SIZE is {size}" if "WORLD_SIZE" in given else "WORLD_SIZE is not set"
        raise ValueError(f"RANK is {place}, and {told}; {_alone_without('RANK')}")
    missing = ", ".join(name for name in NAMES if name not in given)
    if size > 1 and missing:
        raise ValueError(
            f"WORLD_SIZE is {size}, and {missing} not set; {_alone_without('WORLD_SIZE')}"
        )
    port = given.get("MASTER_PORT", "")  # of a process that is alone, anything
    if size > 1 and not (_is_number(port) and int(port) <= _PORTS):
        raise ValueError(f"MASTER_PORT is {port[:40]!r}: a port is a number up to {_PORTS}")


def _of_others() -> dict[str, str]:
    """What torchrun would have said to this task of several; nothing to one that is alone."""
    for names in _AS:
        size = names["WORLD_SIZE"]
        _check_number("WORLD_SIZE", os.environ.get(size, ""), of=size)
        if (_number(size) or 1) > 1:
            found = {name: os.environ.get(theirs, "") for name, theirs in names.items()}
            found |= _meeting_of_slurm() if names is _AS[0] else {}
            return {name: value for name, value in found.items() if value}
    return {}


def _check_number(name: str, text: str, of: str = "") -> None:
    if text and not _is_number(text):
        raise ValueError(f"{of or name} is {text[:40]!r} and no number; {_alone_without(name)}")


def _alone_without(name: str) -> str:
    theirs = [names[name] for names in _AS if os.environ.get(names[name])]
    unset = " and ".join([name, *theirs])
    return f"start with torchrun, or unset {unset} to work in one process"


def check_shared(verb: str) -> None:
    """Whether several processes, if there are several, can do it together.

    Raises:
        ValueError: they cannot.
    """
    if world() > 1 and verb not in _SHARED:
        raise ValueError(
            f"{verb} works in one process, and {world()} were started; only {', '.join(_SHARED)} "
            "can share their work"
        )


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if _is_number(text) else None


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def _meeting_of_slurm() -> dict[str, str]:
    """Where the tasks of this step of srun meet, and how many are on this machine."""
    found = {}
    # The first of "gpu[07-09,12],login": brackets may hold commas.
    first = re.split(r",(?![^\[]*\])", os.environ.get("SLURM_STEP_NODELIST", ""))[0]
    found["MASTER_ADDR"] = re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)
    # The same for all tasks of a step, another for others, and above what systems give away.
    step = 101 * (_number("SLURM_JOB_ID") or 0) + (_number("SLURM_STEP_ID") or 0)
    found["MASTER_PORT"] = str(61440 + step % 4096)
    (found["LOCAL_WORLD_SIZE"],) = re.findall(r"^\d+", os.environ.get(_TASKS, "")) or [""]
    return found
