"""Run folders as the report sees them: read, checked for shape, never changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmd_ddm.runlog import read_events, read_json

__all__ = ["Run", "read_run"]


@dataclass(frozen=True)
class Run:
    """What one run left behind.

    Attributes:
        folder: the path as the user gave it.
        about: ``run.json``: verb, settings, command, versions.
        results: ``results.json``: protocol, spaces, rows, speedup.
        events: ``log.jsonl``, oldest first; empty if there is none.
        pairs: the same-noise picture, if there is one.
        index: ``model/model_index.json``, if a model was exported.
    """

    folder: Path
    about: dict[str, Any]
    results: dict[str, Any]
    events: list[dict[str, Any]]
    pairs: Path | None
    index: dict[str, Any] | None


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: ``run.json`` or ``results.json`` is missing, unreadable or of another shape.
    """
    missing = [name for name in ("run.json", "results.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}; give the folder of a finished run"
        )
    pairs, index = folder / "pairs.png", folder / "model" / "model_index.json"
    return Run(
        folder=folder,
        about=read_json(folder / "run.json"),
        results=_check_shape(read_json(folder / "results.json"), folder / "results.json"),
        events=read_events(folder),
        pairs=pairs if pairs.is_file() else None,
        index=read_json(index) if index.is_file() else None,
    )


def _check_shape(results: dict[str, Any], path: Path) -> dict[str, Any]:
    spaces, rows = results.get("spaces"), results.get("rows")
    if not isinstance(spaces, dict) or not all(isinstance(s, dict) for s in spaces.values()):
        raise ValueError(f"{path} has no object 'spaces' of objects; evaluate the run again")
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError(f"{path} has no list 'rows' of objects; evaluate the run again")
    return results
