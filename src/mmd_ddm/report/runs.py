"""Folders of runs and comparisons as the report sees them: read, checked, never changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmd_ddm.runs.files import read_json
from mmd_ddm.runs.folder import read_events

__all__ = ["Companion", "Run", "companions", "read_run", "run_of"]

# What other verbs may have put beside a run: its folder there, and its title on the page.
_COMPANIONS = {
    "neighbors": "Nearest training images",
    "interpolation": "Interpolation between two noises",
}


_BY_CONDITION = {"classes.png": "Class by class", "prompts.png": "Prompt by prompt"}


class Companion(NamedTuple):
    """A picture that another verb made of a run: title, finding (it may be empty), file."""

    title: str
    sentence: str
    picture: Path


@dataclass(frozen=True)
class Run:
    """What a run, or a comparison of samplers, left behind.

    Attributes:
        folder: the path as the user gave it.
        compares: it is a comparison.
        about: ``run.json``: verb, settings, command, versions; a comparison may lack it.
        results: ``results.json`` or ``bench.json``: protocol, spaces, rows.
        events: ``log.jsonl``, oldest first; empty if there is none.
        solvers: rows of ``bench/bench.json``: the base under other samplers; judged against the
            same images, or left out.
        index: ``model/model_index.json``, if a model was exported.
        scheduler: ``model/scheduler/scheduler_config.json``; empty if there is none.
    """

    folder: Path
    compares: bool
    about: dict[str, Any]
    results: dict[str, Any]
    events: list[dict[str, Any]]
    solvers: list[dict[str, Any]]
    index: dict[str, Any] | None
    scheduler: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.resolve().name

    def picture(self, name: str) -> Path | None:
        """A picture of the folder, if it is there."""
        return self.folder / name if (self.folder / name).is_file() else None


def run_of(thing: Any) -> Run:
    """A run or comparison by its folder, or by what a job gave back.

    Args:
        thing: a path, or a result with ``folder`` and ``record``; of a comparison that wrote
            nothing the record alone is read.

    Raises:
        ValueError: a folder that lacks its results, or an evaluation, which has none.
    """
    folder = getattr(thing, "folder", thing)
    if folder is not None:
        return read_run(Path(folder))
    record = thing.record
    if "notes" not in record:
        raise ValueError("an evaluation without a run folder has no report; give its `record`")
    return Run(Path(record["model"]), True, {}, record, [], [], None, {})


def read_run(folder: Path) -> Run:
    """Read the folder of a run, or that of a comparison, which has a ``bench.json``.

    Raises:
        ValueError: ``run.json`` or ``results.json`` is missing, unreadable or of another shape.
    """
    compares = (folder / "bench.json").is_file()
    wanted = () if compares else ("run.json", "results.json")
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}; give the folder of a finished run"
        )
    results = _read_results(folder / ("bench.json" if compares else "results.json"))
    about, index = folder / "run.json", folder / "model" / "model_index.json"
    scheduler = folder / "model" / "scheduler" / "scheduler_config.json"
    return Run(
        folder=folder,
        compares=compares,
        about=read_json(about) if about.is_file() else {},
        results=results,
        events=read_events(folder),
        solvers=_solvers(folder / "bench" / "bench.json", results),
        index=read_json(index) if index.is_file() else None,
        scheduler=read_json(scheduler) if scheduler.is_file() else {},
    )


def _read_results(path: Path) -> dict[str, Any]:
    results = read_json(path)
    spaces, rows = results.get("spaces"), results.get("rows")
    if not isinstance(spaces, dict) or not all(isinstance(s, dict) for s in spaces.values()):
        raise ValueError(f"{path} has no object 'spaces' of objects; evaluate the run again")
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError(f"{path} has no list 'rows' of objects; evaluate the run again")
    return results


def _solvers(path: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    bench = _read_results(path)
    bench_data, own_data = (
        (of.get("protocol") or {}).get("data_sha256") for of in (bench, results)
    )
    return [r for r in bench["rows"] if r.get("name") == "base" and bench_data == own_data]


def companions(folder: Path) -> Iterator[Companion]:
    """The pictures of a run by class or prompt, and those that other verbs made of it."""
    for name, title in _BY_CONDITION.items():
        if (folder / name).is_file():
            yield Companion(
                title, "Base above, finetuned below, real images beside.", folder / name
            )
    for name, title in _COMPANIONS.items():
        records = [read_json(path) for path in sorted((folder / name).glob("*.json"))]
        sentence = " ".join(str(r["sentence"]) for r in records if "sentence" in r)
        for picture in sorted((folder / name).glob("*.png")):
            yield Companion(title, sentence, picture)
