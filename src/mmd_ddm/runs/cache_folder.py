"""The folder of what is remembered: where it is, what it holds, how it is kept small.

An entry is a file ``KIND/NAME``, with a key's 32 digits at the end of its name; any other file is
left alone. Its time is that of the entry's last use. No torch here.
"""

import atexit
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mmd_ddm.runs.files import remove_leftovers
from mmd_ddm.runs.launch import is_first

__all__ = [
    "GIB", "Entry", "afresh", "cache_dir", "cache_limit", "do_without", "entries", "is_own",
    "prune",
]  # fmt: skip

GIB = 2**30
_DEFAULT_LIMIT = 20
_instead: Path | None = None  # of `afresh`
_without: dict[Path | None, Path] = {}  # of `do_without`, by the folder that cannot be used
_NAME = re.compile(r"(?:.+-)?[0-9a-f]{32}\.\w+")


@dataclass(frozen=True)
class Entry:
    """What is kept under one key.

    Attributes:
        path: its file.
        size: in bytes.
        used: when it was last written or read, in seconds since 1970.
    """

    path: Path
    size: int
    used: float


@contextmanager
def afresh() -> Iterator[None]:
    """Within, nothing is remembered from before, nor kept for later."""
    global _instead
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        before, _instead = _instead, Path(folder)
        try:
            yield
        finally:
            _instead = before


def cache_dir() -> Path:
    """``$MMD_DDM_CACHE``, or ``~/.cache/mmd-ddm``, or of `do_without`; it need not exist yet."""
    if _instead is not None:
        return _instead
    named = _named()
    if named is None and named not in _without:
        do_without("there is no home folder")
    return _without.get(named) or Path(str(named))


def do_without(why: str) -> None:
    """From here on this process remembers in a folder of its own, which goes with it."""
    folder = tempfile.mkdtemp(prefix="mmd-ddm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _without[_named()] = Path(folder)
    if is_first():
        print(
            f"mmd-ddm: {why}; nothing is remembered after this command, unless $MMD_DDM_CACHE "
            "names a folder that can be written",
            file=sys.stderr,
        )


def is_own() -> bool:
    """Whether no other process remembers there: see `afresh` and `do_without`."""
    return _instead is not None or _named() in _without


def _named() -> Path | None:
    if os.environ.get("MMD_DDM_CACHE"):
        return Path(os.environ["MMD_DDM_CACHE"])
    with suppress(RuntimeError):  # neither $HOME nor an entry in the list of users
        return Path.home() / ".cache" / "mmd-ddm"
    return None


def cache_limit() -> float:
    """Bytes that may be kept: ``$MMD_DDM_CACHE_LIMIT`` in GiB, by default 20; infinite if it is 0.

    Raises:
        ValueError: no such number.
    """
    text = os.environ.get("MMD_DDM_CACHE_LIMIT", str(_DEFAULT_LIMIT))
    limit = -1.0
    with suppress(ValueError):
        limit = float(text)
    if not limit >= 0:  # nor is it NaN
        raise ValueError(f"MMD_DDM_CACHE_LIMIT is {text!r}; give a number of GiB, 0 for no limit")
    return limit * GIB or math.inf


def entries() -> list[Entry]:
    """All that is kept, least recently used first."""
    found = []
    for folder in _kinds():
        for file in os.scandir(folder):
            if _NAME.fullmatch(file.name) and file.is_file():
                with suppress(FileNotFoundError):  # another process has just removed it
                    about = file.stat()
                    found.append(Entry(Path(file.path), about.st_size, about.st_mtime))
    return sorted(found, key=lambda entry: entry.used)


def prune(most: float, spare: Path | None = None) -> list[Entry]:
    """Remove what was used least recently, until the rest is small enough.

    A process that has mapped an entry keeps what it mapped, except where the system refuses to
    remove such a file: there it stays.

    Args:
        most: bytes that may stay.
        spare: an entry that stays in any case.

    Returns:
        What was removed.
    """
    for folder in _kinds():
        remove_leftovers(folder)
    kept, removed = entries(), []
    total = sum(entry.size for entry in kept)
    for entry in kept:
        if total <= most:
            break
        if entry.path != spare:
            with suppress(OSError):
                entry.path.unlink()
                removed.append(entry)
                total -= entry.size
    return removed


def _kinds() -> Iterator[Path]:
    root = cache_dir()
    return (path for path in root.iterdir() if path.is_dir()) if root.is_dir() else iter(())
