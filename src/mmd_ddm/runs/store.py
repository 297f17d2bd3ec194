"""What was computed before, by the content it was computed from: one store of everything.

A key is the hash of everything that a value depends on (`fingerprint.key_of`); where that is code
of ours, `fingerprint.code_sha256` is part of it. An entry is a file that appears whole; one that
cannot be read is computed again. Of processes that want the same entry at once one computes, and
the others wait for it. What was used least recently goes when the whole grows over
`cache_folder.cache_limit`.
"""

import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from mmd_ddm.runs import ranks
from mmd_ddm.runs.cache_folder import cache_dir, cache_limit, do_without, is_own, prune
from mmd_ddm.runs.files import alone, atomic_write, read_json
from mmd_ddm.runs.launch import local_rank, world

__all__ = ["remembered", "remembered_arrays", "remembered_file"]

T = TypeVar("T")
V = TypeVar("V")


def remembered(
    kind: str, key: str, compute: Callable[[], dict[str, Any]], *, root: Path | None = None
) -> dict[str, Any]:
    """``compute()``, or what it gave under this key before, as JSON gives it back.

    Several ranks have to ask together: all compute, or none does.

    Args:
        kind: the folder of the cache.
        key: see `fingerprint.key_of`.
        compute: asked where nothing, or nothing that can be read, is kept.
        root: in place of the cache, of a job that keeps what it makes; nothing there is pruned.
    """
    name = f"{key}.json"
    return remembered_file(kind, name, compute, _save_json, read_json, together=True, root=root)


def remembered_arrays(
    kind: str, key: str, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The same of named arrays."""
    return remembered_file(kind, f"{key}.npz", compute, _save_arrays, _read_arrays, together=True)


def remembered_file(
    kind: str,
    name: str,
    compute: Callable[[], V],
    save: Callable[[IO[bytes], V], None],
    read: Callable[[Path], T],
    *,
    together: bool,
    root: Path | None = None,
) -> T:
    """The same of any form of file: what ``read`` makes of it, such as an array mapped from it.

    Args:
        kind: the folder of the cache.
        name: of the file: a key with the ending of its form, and words before it at will.
        compute: gives what is to be kept; asked where ``read`` fails.
        save: writes that.
        read: raises ValueError or OSError if the file does not hold what it should.
        together: several ranks have to ask together: all compute, or none does. Otherwise they
            are processes like any others.
        root: see `remembered`.

    Raises:
        ValueError: a limit that is no number.
        Exception: whatever ``compute`` and ``save`` raise, and ``read`` of what was just saved.
            A cache that cannot be written is done without.
    """
    path, limit = (root or cache_dir()) / kind / name, cache_limit()

    def keep() -> T:
        # The work may itself have found that the cache cannot be written.
        value, place = compute(), (root or cache_dir()) / kind / name
        error = None
        if not together or local_rank() == 0 or is_own():  # machines may share no disk
            error = _save(place, value, save, limit)
        failed = error is not None
        if (ranks.any_of(failed) if together else failed) and root is None:
            do_without(f"{cache_dir()} cannot be written{_why(error)}")
            place = cache_dir() / kind / name
            error = _save(place, value, save, limit)
        while error is None:
            with suppress(FileNotFoundError):  # another process has just removed it
                return read(place)
            error = _save(place, value, save, limit)
        raise error

    found: Any = _find(path, read)
    if together and world() > 1:
        # Without a lock: the others' patience with a rank that waits for it is limited.
        return keep() if ranks.any_of(found is None) else found
    if found is None:
        with alone(path.with_name(f"{name}.lock")):
            found = _find(path, read)  # another process may just have made it
            if found is None:
                found = keep()
    return found


def _why(error: OSError | None) -> str:
    return f" ({error.strerror})" if error is not None and error.strerror else ""


def _find(path: Path, read: Callable[[Path], T]) -> T | None:
    try:
        found = read(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return None
    with suppress(OSError):  # a cache of someone else's may be read, too
        os.utime(path)
    return found


def _save(
    path: Path, value: V, save: Callable[[IO[bytes], V], None], limit: float
) -> OSError | None:
    try:
        with atomic_write(path) as file:
            save(file, value)
    except OSError as error:
        return error
    with suppress(OSError):  # someone else's entries
        prune(limit, spare=path)
    return None


def _save_json(file: IO[bytes], value: dict[str, Any]) -> None:
    file.write(json.dumps(value, indent=2).encode("utf-8"))


def _save_arrays(file: IO[bytes], value: dict[str, Any]) -> None:
    np.savez(file, **value)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:  # of a damaged one, numpy would leave it open
        return dict(np.load(file))
