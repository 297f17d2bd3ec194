"""Files and folders that are whole at any moment, whoever else writes them. No torch here."""

import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from mmd_ddm.runs.launch import is_first
from mmd_ddm.runs.patience import waiting

__all__ = [
    "alone", "alone_at", "atomic_folder", "atomic_write", "check_space", "check_writable",
    "is_leftover", "read_json", "remove_leftovers", "size_text", "write_json", "write_text",
]  # fmt: skip

_DAY = 24 * 60 * 60  # seconds
# Of `atomic_write` and `atomic_folder`, and of the locks of what is remembered. Not of a run's: it
# may be held for days.
_LEFTOVER = re.compile(r".+\.\d+-[0-9a-f]{8}\.tmp|.*[0-9a-f]{32}\.\w+\.lock")


@contextmanager
def atomic_write(path: Path, *, one_of_many: bool = False) -> Iterator[IO[bytes]]:
    """A file that takes its name once it is whole and on the disk; nobody ever sees half of it.

    Whatever had the name stays until then, and for good if the writing fails. Of several processes
    that write it at once, the last one's stays.

    Args:
        path: of it.
        one_of_many: neither wait for the disk nor tidy the folder, as for every picture of 50,000.
    """
    temporary = _beside(path, tidy=not one_of_many)
    try:
        with temporary.open("xb") as file:
            yield file
            if not one_of_many:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not one_of_many:
        _sync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same of a folder: what is written into the yielded one has the name at the end.

    A folder that had it is moved aside for an instant. Whoever is killed in that instant leaves it
    as ``PATH.before``, beside the new one; it goes when another is whole.
    """
    temporary, before = _beside(path), path.with_name(f"{path.name}.before")
    temporary.mkdir()
    try:
        yield temporary
        for part in temporary.rglob("*"):
            _sync(part)
        if path.exists():
            shutil.rmtree(before, ignore_errors=True)
            path.replace(before)
        temporary.replace(path)
    except BaseException:
        if before.exists() and not path.exists():
            before.replace(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def alone(lock: Path, busy: str = "") -> Iterator[None]:
    """Within, no other process holds this lock; that of a process that is killed goes with it.

    Args:
        lock: its file, which is there only as long. On a disk without locks nobody is kept out.
        busy: what to raise where another process holds it; empty waits for it.

    Raises:
        ValueError: another process holds it.
    """
    file = FileLock(lock, timeout=0 if busy else -1)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with waiting(f"waiting for the process that has {lock}"):
            file.acquire()
    except Timeout as error:
        raise ValueError(busy) from error
    except (OSError, NotImplementedError):  # no locks here, or nothing can be written
        pass
    try:
        yield
    finally:
        if file.is_locked:
            with suppress(OSError):  # where an open file cannot be removed, its release does it
                lock.unlink()
        file.release()


def alone_at(path: Path, instead: str) -> AbstractContextManager[None]:
    """Within, no other process of ours writes this file or folder: `alone`.

    Args:
        path: of it.
        instead: what is to be done where another process does, for the error.
    """
    lock = path.with_name(f"{path.name}.mmd-ddm.lock")
    return alone(lock, f"another process is writing {path}: {instead}")


def check_writable(path: Path) -> None:
    """Whether something can be written under this name; asked before the work that makes it.

    Of several ranks the first one writes, and asks.

    Raises:
        ValueError: it lies in a file, or where nothing can be written.
    """
    if not is_first():
        return
    place = _folder_of(path)
    taken = next((p for p in path.parents if p.is_file()), None)
    if taken is not None:
        raise ValueError(f"{path} cannot be written: {taken} is a file; give a folder")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written: {place}: {error.strerror}; give another place"
        ) from error


def check_space(path: Path, needed: int) -> None:
    """Whether this many bytes fit on its disk; asked before the work that makes them.

    Args:
        path: file or folder; what it holds already, as of a run that is resumed, is counted.
        needed: bytes in all.

    Raises:
        ValueError: less is free.
    """
    if not is_first():
        return
    held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    place, more = _folder_of(path), needed - held
    free = shutil.disk_usage(place).free
    if more > free:
        raise ValueError(
            f"{path} needs about {size_text(more)}, but only {size_text(free)} are free at "
            f"{place}: make room there, or give another place"
        )


def _folder_of(path: Path) -> Path:
    """The nearest folder that is there."""
    return next((p for p in (path, *path.parents) if p.is_dir()), path)


def size_text(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def is_leftover(path: Path) -> bool:
    """Whether this is what a process that was killed had begun to write, or had locked."""
    return _LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed began to write, or locked, more than a day ago."""
    for path in filter(is_leftover, folder.iterdir()):
        with suppress(OSError):  # another process was faster
            if path.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _beside(path: Path, *, tidy: bool = True) -> Path:
    """A name that no other process takes, in the same folder, which is made and tidied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if tidy:
        remove_leftovers(path.parent)
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _sync(path: Path) -> None:
    """Bring it to the disk: a file's content, a folder's names."""
    if os.name == "nt":  # which opens no folders, and needs none of this
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "replace"))  # a name of a file may be no text


def write_json(path: Path, content: Any) -> None:
    """Write JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: not there, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content
