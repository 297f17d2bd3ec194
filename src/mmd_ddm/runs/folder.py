"""What a run leaves behind: its folder, its settings, a line of JSON an event.

A run folder holds ``run.json`` (verb, resolved settings, hashes of the inputs, versions, command
line and where it ran), ``log.jsonl`` (one object a line), and what the verb adds. Reading needs no
torch. Of ranks that share a run the first one checks and writes the folder.
"""

import importlib.metadata
import itertools
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from mmd_ddm.runs.files import alone, check_writable, is_leftover, read_json, write_json
from mmd_ddm.runs.launch import check_shared, is_first

__all__ = [
    "OutputError",
    "RunLog",
    "check_folder",
    "describe_environment",
    "free_folder",
    "read_events",
    "refuse_foreign_results",
]

_PACKAGES = ("mmd-ddm", "torch", "diffusers", "timm", "torch-fidelity", "numpy")
# What a resumed run may change, since the weights do not depend on it, or only through the images,
# whose hashes must be the same.
_WITHOUT_EFFECT = {
    "background", "compare_steps", "judge_samples", "keep", "keep_checkpoint", "save_every",
    "skip_damaged",
}  # fmt: skip
# What may become more: a run of fewer is a part of one of more, or is replaced as a whole.
_GROWS = {"iterations", "n", "samples"}
_PLACES = {"model", "data", "heldout", "start_from"}
_HASH = "_sha256"
_LOCK = "run.lock"  # there while a process writes the folder


class OutputError(ValueError):
    """The output folder cannot be used as asked."""


class RunLog:
    """A run folder, open and this process's alone within ``with``.

    Args:
        folder: created if need be.
        verb: ``finetune``, ``pretrain`` ...
        settings: the resolved settings; a folder that holds a run of other settings is refused.
        inputs: hashes of what it begins with; others are refused as well. What a setting names,
            ``data``, may be named otherwise where ``data_sha256`` is here.

    Attributes:
        before: the settings that were recorded until now; empty of a new run.

    Raises:
        OutputError: on entering: the folder holds something else, or another run.
        ValueError: likewise: another process is writing it, or nobody can.
    """

    def __init__(
        self,
        folder: Path,
        verb: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._verb, self._settings, self._inputs = verb, dict(settings), dict(inputs or {})
        self.before: dict[str, Any] = {}
        self._held = ExitStack()

    def __enter__(self) -> "RunLog":
        check_shared(self._verb)
        if is_first():
            with self._held:  # until the record is written, an error gives the folder back
                check_folder(self.folder, self._verb, self._settings, self._inputs)
                self._held.enter_context(_alone_in(self.folder))
                self._begin()
                self._held = self._held.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def _begin(self) -> None:
        path = self.folder / "run.json"
        record = {"verb": self._verb, "settings": self._settings, "inputs": self._inputs}
        if path.is_file():  # perhaps since the check
            _refuse_other_run(path, self._verb, self._settings, self._inputs)
            self._end_line()
            found = read_json(path)
            self.before = found.get("settings", {})
            if self.before != json.loads(json.dumps(self._settings)):
                # Those that may change have; places are seen from where this command runs.
                now = describe_environment()
                about = {key: now[key] for key in ("command", "folder")}
                write_json(path, {**found, **record, **about})
        else:
            write_json(path, {**record, **describe_environment()})

    def write(self, **event: Any) -> None:
        """Append one event, with the wall-clock time."""
        if not is_first():
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")

    def _end_line(self) -> None:
        """A killed run may have left half a line, which nothing may be appended to."""
        log = self.folder / "log.jsonl"
        if log.is_file() and not log.read_bytes().endswith(b"\n"):
            with log.open("a", encoding="utf-8") as file:
                file.write("\n")

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return read_events(self.folder)


def check_folder(
    folder: Path,
    verb: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
    *,
    exact: bool = False,
) -> None:
    """Whether a run may be written there; asked before anything slow, and by `RunLog` itself.

    Args:
        folder: of the run.
        verb: as in `RunLog`.
        settings: likewise.
        inputs: likewise; None while they are not known, when a setting may name anything that the
            earlier run has a hash of.
        exact: it may not, and more iterations or images are another setting as well.

    Raises:
        OutputError: the folder holds something else, or another run.
        ValueError: another process is writing it, or nobody can.
    """
    if not is_first():
        return
    if folder.is_file():
        raise OutputError(f"{folder} is a file; give a folder")
    if (folder / "run.json").is_file():
        _refuse_other_run(folder / "run.json", verb, settings, inputs, exact=exact)
    elif folder.is_dir() and not all(_of_a_run(path) for path in folder.iterdir()):
        raise OutputError(f"{folder} holds something else; give a new or empty folder")
    check_writable(folder)
    if (folder / _LOCK).exists():
        with _alone_in(folder):
            pass


def _alone_in(folder: Path) -> AbstractContextManager[None]:
    busy = f"another process is writing {folder}: wait for its end, or give a new folder"
    return alone(folder / _LOCK, busy)


def _of_a_run(path: Path) -> bool:
    """Whether it is what a run that was killed before its record was written has left."""
    return path.name == _LOCK or is_leftover(path)


def refuse_foreign_results(path: Path) -> None:
    """Only what `evaluate` wrote may be replaced: a finetuning's results hold its verdict.

    Raises:
        ValueError: a folder, or another file, or where nothing can be written.
    """
    check_writable(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a JSON file")
    if not path.exists():
        return
    content: dict[str, Any] = {}
    with suppress(ValueError):
        content = read_json(path)
    if not content.keys() >= {"protocol", "spaces", "rows"}:
        raise ValueError(f"{path} is not a file of results; give another name")
    if "speedup" in content:
        raise ValueError(f"{path} holds the results of a finetuning; give another name")


def free_folder(folder: Path, verb: str, settings: Mapping[str, Any]) -> Path:
    """The folder, if this run may be written there, or the first such of FOLDER-2, FOLDER-3 ..."""
    for number in itertools.count(1):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if not candidate.exists():
            break
        with suppress(OutputError):
            check_folder(candidate, verb, settings, exact=True)
            break
    return candidate


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All whole events of a run folder, oldest first: a killed run may leave half a line."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict)]


def _refuse_other_run(
    existing: Path,
    verb: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str] | None,
    *,
    exact: bool = False,
) -> None:
    before, run = read_json(existing), existing.parent
    if before.get("verb") != verb:
        raise OutputError(f"{run} holds a {before.get('verb')} run; give a new folder")
    old, new = (_flat(each) for each in (before.get("settings"), settings))
    began, begins = (_flat(each) for each in (before.get("inputs"), inputs))
    place = Path(before.get("folder", ""))
    changed, renamed = list[str](), list[str]()
    for key in sorted({*old, *new} - _WITHOUT_EFFECT):
        then, now = old.get(key), new.get(key)
        if _same(key, then, now, place):
            continue
        if not exact and _is_more(key, then, now):
            continue
        by_content = key + _HASH in began and not exact and _may_be_same(key, then, now)
        (renamed if by_content else changed).append(f"{key}: {then!r} -> {now!r}")
    if changed:
        beside = ", or --force-new-run" if verb in ("finetune", "pretrain") else ""
        raise OutputError(
            f"{run} holds a run with other settings ({'; '.join(changed)}); give a new folder, "
            f"or repeat the old settings to resume it{beside}"
        )
    if inputs is not None and began != begins:
        renamed += [
            f"{key}: {str(began.get(key))[:12]!r} -> {str(begins.get(key))[:12]!r}"
            for key in sorted({*began, *begins})
            if began.get(key) != begins.get(key)
        ]
        raise OutputError(
            f"{run} began with other data or weights ({'; '.join(renamed)}): the content is not "
            "the same, whatever its name; put it back, or give a new folder"
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Settings by their dotted names, as JSON holds them."""
    if not isinstance(value, Mapping):
        return {name: json.loads(json.dumps(value))} if name or value else {}
    return {
        dotted: inner
        for key, part in value.items()
        for dotted, inner in _flat(part, f"{name}.{key}" if name else key).items()
    }


def _same(key: str, old: Any, new: Any, folder: Path) -> bool:
    """Whether two settings mean the same; names of places are seen from the old one's folder."""
    if old == new or not (isinstance(old, str) and isinstance(new, str)):
        return bool(old == new)
    if key == "device":  # auto is not known until torch is asked; the record then has the device
        return "auto" in (old, new) or old.partition(":")[0] == new.partition(":")[0]
    if key == "trained" and not new:  # nor this, until the model is loaded
        return True
    named = key in _PLACES and old and new
    return bool(named) and (folder / old).resolve() == Path(new).resolve()


def _is_more(key: str, old: Any, new: Any) -> bool:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return key in _GROWS and numbers and new > old


def _may_be_same(key: str, old: Any, new: Any) -> bool:
    """Whether two names may stand for one content: of spaces only those that say which file."""
    if key in _PLACES:
        return True
    kinds = [
        [re.sub(r":.*?(?=(\+uint8)?$)", ":", str(name)) for name in names]
        for names in (each if isinstance(each, list) else [each] for each in (old, new))
    ]
    return kinds[0] == kinds[1]


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
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    """Of this package's sources, with ``-dirty`` if they are changed; None if git has them not."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), *words],
        capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip
    return done.stdout.strip()
