"""Files that are whole at any moment, whoever else writes them. No torch here."""

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_write", "read_json", "remove_leftovers", "write_json"]

_DAY = 24 * 60 * 60  # seconds
# Of `atomic_write`, and of the locks of what is remembered.
_LEFTOVER = re.compile(r".+\.\d+-[0-9a-f]{8}\.tmp|.*[0-9a-f]{32}\.\w+\.lock")


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name once it is whole and on the disk; nobody ever sees half of it.

    Whatever had the name stays until then, and for good if the writing fails. Of several processes
    that write it at once, the last one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed began to write, or locked, more than a day ago."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            with suppress(OSError):  # another process was faster
                if path.stat().st_mtime < time.time() - _DAY:
                    path.unlink()


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk as well."""
    if os.name == "nt":  # which opens no folders, and needs none of this
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, atomically."""
    text = json.dumps(content, indent=2) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


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
