"""What a run leaves behind: its folder, its settings, a line of JSON an event.

A run folder holds ``run.json`` (verb, resolved settings, versions, command line), ``log.jsonl``
(one object a line), and what the verb adds. Reading needs no torch.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = [
    "OutputError",
    "RunLog",
    "atomic_write",
    "check_folder",
    "describe_environment",
    "read_json",
    "write_json",
]

_PACKAGES = ("mmd-ddm", "torch", "diffusers", "timm", "torch-fidelity", "numpy")


class OutputError(ValueError):
    """The output folder cannot be used as asked."""


class RunLog:
    """An open run folder.

    Args:
        folder: created if need be.
        verb: ``finetune``, ``pretrain`` ...
        settings: the resolved settings; a folder that holds a run of other settings is refused.

    Raises:
        OutputError: the folder holds something else, or another run.
    """

    def __init__(self, folder: Path, verb: str, settings: Mapping[str, Any]) -> None:
        check_folder(folder, verb, settings)
        self.folder = folder
        if not (folder / "run.json").is_file():
            write_json(
                folder / "run.json",
                {"verb": verb, "settings": dict(settings), **describe_environment()},
            )

    def write(self, **event: Any) -> None:
        """Append one event, with the wall-clock time."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        return list(_complete_lines(path))


def check_folder(folder: Path, verb: str, settings: Mapping[str, Any]) -> None:
    """Whether a run may be written there; asked before anything slow, and by `RunLog` itself.

    Raises:
        OutputError: the folder holds something else, or another run.
    """
    for path in (folder, *folder.parents):
        if path.is_file():
            raise OutputError(f"{path} is a file; give a folder")
    if (folder / "run.json").is_file():
        _refuse_other_run(folder / "run.json", verb, settings)
    elif folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} holds something else; give a new or empty folder")


def _complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return  # a run that was killed may leave half of its last line


def _refuse_other_run(existing: Path, verb: str, settings: Mapping[str, Any]) -> None:
    before = read_json(existing)
    now = json.loads(json.dumps(dict(settings)))
    if before.get("verb") != verb:
        raise OutputError(f"{existing.parent} holds a {before.get('verb')} run; give a new folder")
    old = before.get("settings", {})
    changed = [k for k in sorted({*old, *now}) if old.get(k) != now.get(k)]
    if changed:
        details = "; ".join(f"{k}: {old.get(k)!r} -> {now.get(k)!r}" for k in changed)
        raise OutputError(
            f"{existing.parent} holds a run with other settings ({details}); give a new folder, "
            "or repeat the old settings to resume it"
        )


def describe_environment() -> dict[str, Any]:
    """Versions, machine and command line, for the record."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": ["mmd-ddm", *sys.argv[1:]],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name once it is whole and on the disk; nobody ever sees half of it.

    Whatever had the name stays until then, and for good if the writing fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


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
