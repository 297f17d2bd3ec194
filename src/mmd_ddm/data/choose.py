"""What of a source is the data set, where it holds more than one thing: by its name, or refused.

A choice is written behind the source: ``photos:test`` is the split test, ``set.npz:x_train`` an
array, ``set.parquet:image`` a column. Nothing is chosen by its position.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from mmd_ddm.data.decode import Refused
from mmd_ddm.data.notes import Notes, counted, listed

__all__ = ["SUFFIXES", "TABLES", "choose_files", "choose_name", "find_place", "without_split"]

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff",
}  # fmt: skip
TABLES = (".parquet", ".arrow", ".tar")
_USUAL = ("image", "images", "img", "jpg", "jpeg", "png", "arr_0")
_SPLITS = {
    "train", "training", "val", "valid", "validation", "dev", "test", "testing", "heldout",
}  # fmt: skip
_ALL = "all"


def find_place(source: str) -> tuple[Path, list[str]] | None:
    """The file or folder of a source and what is chosen of it; None if there is none."""
    place, chosen = source, list[str]()
    while place:
        if os.path.exists(place):
            return Path(place), chosen
        place, _, word = place.rpartition(":")
        chosen.insert(0, word)
    return None


def choose_name(found: Sequence[str], asked: list[str], source: str, kind: str) -> str:
    """One of the names under which pictures were found.

    Args:
        found: columns of a table, or arrays of an archive.
        asked: what the person chose, which is used up.
        source: for the message.
        kind: of the names, for the message.

    Raises:
        Refused: none is asked for, and none is usual; or what is asked for is not there.
    """
    names = listed(found, 10)
    if asked:
        wanted = asked.pop(0)
        if wanted not in found:
            raise Refused(f"holds no {kind} {wanted!r} of images; there are {names}")
        return wanted
    usual = [name for word in _USUAL for name in found if name.lower() == word]
    if len(found) != 1 and not usual:
        example = f"{source}:{found[0]}"
        raise Refused(f"holds several {kind}s of images, {names}: choose one, as {example}")
    return (usual or found)[0]


def choose_files(
    names: Iterable[str], asked: list[str], source: str, notes: Notes
) -> tuple[list[str], list[str]]:
    """The pictures or else the tables among the files of a folder or archive, sorted.

    Args:
        names: of the files, relative to it.
        asked: what the person chose, of which the split is used up.
        source: for messages.
        notes: gets what is left out, and what is taken.

    Raises:
        ValueError: pictures and tables, or several splits, of which none is asked for.
    """
    pictures, tables = list[PurePosixPath](), list[PurePosixPath]()
    paths = sorted(PurePosixPath(name) for name in names)
    alone, inner = _runs(paths)
    for path in paths:
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        hidden |= path.match("cache-*.arrow")  # what `datasets` computed from a set, beside it
        sheet = path.parent in alone and not path.stem.isdecimal()
        ours = bool(inner) and not inner.isdisjoint(path.parents)
        ending = path.suffix.lower()
        if ours:
            notes.of_runs += [str(path)] * (ending in SUFFIXES)
        elif hidden or sheet or ending not in (*SUFFIXES, *TABLES):
            notes.skipped.append(str(path))
        else:
            (tables if ending in TABLES else pictures).append(path)
    if pictures and tables:
        raise ValueError(_either(pictures, tables, source))
    taken, split = _choose_split(pictures or tables, asked, source)
    notes.taken = _taken(taken, "table" if tables else "picture") + split
    chosen = [str(path) for path in taken]
    return ([], chosen) if tables else (chosen, [])


def _runs(paths: Sequence[PurePosixPath]) -> tuple[set[PurePosixPath], set[PurePosixPath]]:
    """Folders of runs of ours: what there is lies in it, or there is more beside it."""
    runs = {path.parent for path in paths if path.name == "run.json"}
    below = Counter(run for path in paths for run in runs.intersection(path.parents))
    alone = {run for run in runs if below[run] == len(paths)}
    return alone, runs - alone


def _choose_split(
    paths: list[PurePosixPath], asked: list[str], source: str
) -> tuple[list[PurePosixPath], str]:
    """The files of one split, and words for it."""
    found = Counter(map(_split_of, paths))
    splits = sorted(found.keys() - {""})
    wanted = next((word for word in asked if word in (*splits, _ALL)), "")
    if wanted:
        asked.remove(wanted)
    elif len(splits) > 1:
        counts = listed([f"{found[name]:,} in {name}" for name in splits], 10)
        raise ValueError(
            f"{source} holds several splits ({counts}): choose one, as {source}:{splits[0]}, or "
            f"{source}:{_ALL}"
        )
    name = wanted or "".join(splits) * ("" not in found)
    return (
        [path for path in paths if wanted in ("", _ALL, _split_of(path))],
        f", split {name}" * bool(name),
    )


def _split_of(path: PurePosixPath) -> str:
    """By its folder; of a table by its name too, as the hub writes it: ``test-00000-of-00001``.

    ``save_to_disk`` calls all of them data.
    """
    for part in path.parent.parts:
        if part.lower() in _SPLITS:
            return part
    if path.suffix.lower() not in TABLES:
        return ""
    numbered = re.fullmatch(r"(.+)-\d{5}-of-\d{5}", path.stem)
    word = numbered[1] if numbered else re.split("[-_.]", path.stem)[0]
    return word if (numbered and word != "data") or word.lower() in _SPLITS else ""


def without_split(parts: tuple[str, ...]) -> tuple[str, ...]:
    """A path below the folder of its split, or the whole of it."""
    splits = [i for i, part in enumerate(parts[:-1]) if part.lower() in _SPLITS]
    return parts[splits[0] + 1 :] if splits else parts


def _taken(paths: Sequence[PurePosixPath], kind: str) -> str:
    """How many, and in which folders."""
    folders = Counter(str(path.parent) for path in paths)
    parts = [f"{count:,} in {name}" for name, count in folders.items()]
    where = f" ({listed(parts, 6)})" if folders.keys() - {"."} else ""
    return f"{counted(len(paths), kind)}{where}"


def _either(
    pictures: Sequence[PurePosixPath], tables: Sequence[PurePosixPath], source: str
) -> str:
    both = f"{source} holds {_taken(pictures, 'picture')} and {_taken(tables, 'table')}"
    tops = {path.parts[0] for path in tables} ^ {path.parts[0] for path in pictures}
    tops -= {str(path) for path in pictures}
    if not os.path.isdir(source) or not tops:
        return f"{both}: take them apart, and give the folder of one"
    ways = listed([f"{source}/{top}" for top in sorted(tops)], 4)
    return f"{both}: give the one that is meant, of {ways}"
