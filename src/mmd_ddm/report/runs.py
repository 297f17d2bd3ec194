"""Folders of runs and comparisons as the report sees them: read, checked, never changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmd_ddm.runs.folder import read_events, read_json

__all__ = ["Companion", "Comparison", "Run", "read", "read_run"]

# What other verbs may have put beside a run: its folder there, and its title on the page.
_COMPANIONS = {
    "neighbors": "Nearest training images",
    "interpolation": "Interpolation between two noises",
}


@dataclass(frozen=True)
class Companion:
    """A picture that another verb made of this run.

    Attributes:
        title: what it shows.
        sentence: its finding; empty if it states none.
        picture: the file.
    """

    title: str
    sentence: str
    picture: Path


@dataclass(frozen=True)
class Run:
    """What one run left behind.

    Attributes:
        folder: the path as the user gave it.
        about: ``run.json``: verb, settings, command, versions.
        results: ``results.json``: protocol, spaces, rows, speedup.
        events: ``log.jsonl``, oldest first; empty if there is none.
        pairs: the same-noise picture, if there is one.
        wipe: the same images of base and finetuned model, each on a sheet of its own.
        solvers: rows of ``bench/bench.json``: the base under other samplers; judged against the
            same images, or left out.
        companions: pictures of other verbs.
        index: ``model/model_index.json``, if a model was exported.
    """

    folder: Path
    about: dict[str, Any]
    results: dict[str, Any]
    events: list[dict[str, Any]]
    pairs: Path | None
    wipe: tuple[Path, Path] | None
    solvers: list[dict[str, Any]]
    companions: list[Companion]
    index: dict[str, Any] | None


@dataclass(frozen=True)
class Comparison:
    """What a comparison of samplers left behind.

    Attributes:
        folder: the path as the user gave it.
        results: ``bench.json``: model, protocol, spaces, rows, notes.
        chart: KID against network calls, if it was drawn.
    """

    folder: Path
    results: dict[str, Any]
    chart: Path | None


def read(folder: Path) -> Run | Comparison:
    """Read the folder of a run, or that of a comparison, which has a ``bench.json``.

    Raises:
        ValueError: it is neither, or unreadable.
    """
    path, chart = folder / "bench.json", folder / "bench.png"
    if not path.is_file():
        return read_run(folder)
    results = _check_shape(read_json(path), path)
    return Comparison(folder, results, chart if chart.is_file() else None)


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
    wipe = folder / "before.png", folder / "after.png"
    results = _check_shape(read_json(folder / "results.json"), folder / "results.json")
    return Run(
        folder=folder,
        about=read_json(folder / "run.json"),
        results=results,
        events=read_events(folder),
        pairs=pairs if pairs.is_file() else None,
        wipe=wipe if all(sheet.is_file() for sheet in wipe) else None,
        solvers=_solvers(folder / "bench" / "bench.json", results),
        companions=list(_companions(folder)),
        index=read_json(index) if index.is_file() else None,
    )


def _check_shape(results: dict[str, Any], path: Path) -> dict[str, Any]:
    spaces, rows = results.get("spaces"), results.get("rows")
    if not isinstance(spaces, dict) or not all(isinstance(s, dict) for s in spaces.values()):
        raise ValueError(f"{path} has no object 'spaces' of objects; evaluate the run again")
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ValueError(f"{path} has no list 'rows' of objects; evaluate the run again")
    return results


def _solvers(path: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    bench = _check_shape(read_json(path), path)
    bench_data, own_data = (
        (of.get("protocol") or {}).get("data_sha256") for of in (bench, results)
    )
    return [r for r in bench["rows"] if r.get("name") == "base" and bench_data == own_data]


def _companions(folder: Path) -> Iterator[Companion]:
    for name, title in _COMPANIONS.items():
        records = [read_json(path) for path in sorted((folder / name).glob("*.json"))]
        sentence = " ".join(str(r["sentence"]) for r in records if "sentence" in r)
        for picture in sorted((folder / name).glob("*.png")):
            yield Companion(title, sentence, picture)
