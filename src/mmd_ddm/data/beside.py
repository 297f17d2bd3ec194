"""What lies beside pictures, of a folder or zip, and says their labels and captions.

- ``metadata.jsonl`` or ``metadata.csv`` in the folder of the pictures or above it: a line each,
  with the picture's ``file_name`` relative to it, as the ``imagefolder`` of `datasets` has it;
- EDM's ``dataset.json``: ``{"labels": [["00000/img0.png", 6], ...]}``;
- a text of the same name, ``0001.txt`` beside ``0001.png``.

`datasets` reads the first as well, and leaves out every picture without a line in silence.
"""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from mmd_ddm.data.kinds import damage

__all__ = ["column_beside", "edm_labels", "files_beside", "texts_beside"]

_EDM = "dataset.json"
_SHEETS = ("metadata.jsonl", "metadata.csv")
_MOST = 2**28  # bytes of one file
_Read = Callable[[str], bytes | None]


def column_beside(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[Any] | None:
    """What the lines of the pictures say in the first of these columns that there is.

    Args:
        path: the folder or archive.
        names: of the pictures, relative to it.
        columns: in the order in which they are looked for.

    Returns:
        One for each picture, None of those without a line; None where there are no such lines.

    Raises:
        ValueError: lines that cannot be read.
    """
    rows = dict[str, dict[str, Any]]()
    with _files(path) as read:
        for folder in _folders(names):
            for sheet in (str(folder / name) for name in _SHEETS):
                for row in _rows(path, sheet, read):
                    rows[str(folder / str(row["file_name"]))] = row
    said = {column for row in rows.values() for column in row}
    column = next((name for name in columns if name in said), None)
    return [rows.get(name, {}).get(column) for name in names] if column else None


def files_beside(names: Sequence[str]) -> set[str]:
    """The names of all files that are looked for beside these pictures."""
    sheets = {str(folder / name) for folder in _folders(names) for name in _SHEETS}
    return {_EDM, *sheets, *map(_text_of, names)}


def _folders(names: Sequence[str]) -> list[PurePosixPath]:
    """All that the pictures are in, the outer ones first."""
    found = {folder for name in names for folder in PurePosixPath(name).parents}
    return sorted(found, key=lambda folder: (len(folder.parts), folder))


def _text_of(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".txt"))


def _rows(path: Path, sheet: str, read: _Read) -> list[dict[str, Any]]:
    content = read(sheet)
    if content is None:
        return []
    try:
        text = content.decode("utf-8-sig")
        if sheet.endswith("csv"):
            rows = list(csv.DictReader(io.StringIO(text)))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        if all("file_name" in row for row in rows):
            return rows
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{sheet} of {path} cannot be read: {damage(error)}") from error
    raise ValueError(f"{sheet} of {path} has lines without the file_name of a picture")


def texts_beside(path: Path, names: Sequence[str]) -> list[str | None]:
    """The text beside each picture, or None."""
    with _files(path) as read:
        found = [read(_text_of(name)) for name in names]
    return [None if text is None else text.decode("utf-8", "replace") for text in found]


def edm_labels(path: Path) -> dict[str, Any] | None:
    """The class of each picture by EDM's list, if there is one with labels."""
    with _files(path) as read:
        text = read(_EDM)
    if text is None:
        return None
    try:
        found = json.loads(text)["labels"]
        return None if found is None else {str(name): label for name, label in found}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{_EDM} of {path} cannot be read: "
            '{"labels": [["00000/img0.png", 6], ...]} is needed'
        ) from error


@contextmanager
def _files(path: Path) -> Iterator[_Read]:
    """Within, reads a file of the folder or archive by its name; None if it is not there."""
    if path.is_dir():

        def read(name: str) -> bytes | None:
            with suppress(OSError):
                if (path / name).stat().st_size <= _MOST:
                    return (path / name).read_bytes()
            return None

        yield read
        return
    with zipfile.ZipFile(path) as archive:

        def unpack(name: str) -> bytes | None:
            with suppress(KeyError):
                if archive.getinfo(name).file_size <= _MOST:
                    return archive.read(name)
            return None

        yield unpack
