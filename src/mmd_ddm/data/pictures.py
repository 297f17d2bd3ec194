"""Pictures in folders and zip archives, read as data that nobody vouches for.

What is plainly no picture of the set is *skipped* and listed: files of other kinds, hidden files
and folders, what a Mac adds to archives (``__MACOSX/``), links to folders, runs of ours within
(with a ``run.json``), and, where a run is itself the source, every picture whose name is not a
number (``grid.png``). What looks like a picture and cannot be used as one is *refused*, all at
once and by name: a set with holes is another set.

Archives are read in memory, and the names in them are labels, never paths.
"""

import os
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.choose import choose_files
from mmd_ddm.data.decode import WHOLE, Cut, Damaged, Example, Files, Refused, decode
from mmd_ddm.data.kinds import READ, damage, kind_at
from mmd_ddm.data.notes import Notes, counted

__all__ = ["decoded", "each_picture", "find_pictures", "prefix_of"]

_MAX_BYTES = 2**28  # of one file in an archive, unpacked
_NAMED, _ENOUGH = 10, 1000  # refused pictures that are named, and after which reading stops


def decoded(
    pictures: Files,
    shape: tuple[int, int, int] | None,
    read: ReadConfig,
    notes: Notes,
    cut: Cut = WHOLE,
) -> Iterator[tuple[Example, UInt8[Tensor, "c h w"]]]:
    """Pictures of one shape.

    Args:
        pictures: undecoded.
        shape: (c, h, w); None takes the first one's size, and colour.
        read: what is done instead of refusing.
        notes: gets what there is to say.
        cut: how pictures become smaller.

    Raises:
        ValueError: pictures that are refused: all of them, of which ten are named.
    """
    refused: dict[str, list[str]] = {}
    count = 0
    for example in pictures:
        name = example.name
        try:
            pixels, size = decode(example.content(), shape, read, cut)
        except Refused as error:
            if isinstance(error, Damaged) and read.skip_damaged:
                notes.damaged.append(name)
                continue
            refused.setdefault(f"{error}", []).append(name)
            count += 1
            if count == _ENOUGH:
                break
        else:
            if shape is None:
                channels, height, width = pixels.shape
                shape = channels, height, width
            if size[0] < shape[1] or size[1] < shape[2]:
                notes.enlarged.append(size)
            yield example, pixels
    if refused:
        raise ValueError(_refusal(refused, count))


def _refusal(refused: dict[str, list[str]], count: int) -> str:
    parts, room = [], _NAMED
    for reason, names in refused.items():
        if shown := names[:room]:
            room -= len(shown)
            others = f" (likewise {', '.join(shown[1:])})" if shown[1:] else ""
            parts.append(f"{shown[0]} {reason}{others}")
    if count > _NAMED:
        stopped = ", after which reading stopped" * (count == _ENOUGH)
        parts.append(f"and {counted(count - _NAMED, 'more picture')}{stopped}")
    if any("cannot be read" in reason for reason in refused):
        parts.append("--skip-damaged leaves out what cannot be read")
    return "; ".join(parts)


def find_pictures(path: Path, asked: list[str], notes: Notes) -> tuple[list[str], list[Path]]:
    """The names of the pictures of a folder or zip archive or, where there are none, the tables.

    Args:
        path: the folder or archive.
        asked: the split that was chosen, which is used up.
        notes: gets what is taken and what is skipped.

    Raises:
        ValueError: what cannot be read, or what has to be chosen; the message names it.
    """
    if path.is_dir():
        names, tables = choose_files(_names(path), asked, str(path), notes)
        return names, [path / name for name in tables]
    with _archive(path) as archive:
        inside = [info.filename for info in archive.infolist() if not info.is_dir()]
    names, tables = choose_files(inside, asked, str(path), notes)
    if tables:
        raise ValueError(f"{path} holds {notes.taken}: unpack it, and give the folder")
    return names, []


def each_picture(path: Path, names: Sequence[str]) -> Files:
    """The files of these pictures, undecoded.

    Args:
        path: the folder or zip archive.
        names: of the pictures in it.
    """
    prefix = prefix_of(path)
    if path.is_dir():
        yield from (Example(f"{prefix}{name}", partial(_read, path / name)) for name in names)
        return
    with _archive(path) as archive:
        for name in names:
            yield Example(f"{prefix}{name}", partial(_unpack, archive, name))


def prefix_of(path: Path) -> str:
    """What stands before the name of a picture there."""
    if path.is_dir():
        return "" if path == Path() else f"{str(path).rstrip('/')}/"
    return f"{path}:"


def _names(folder: Path) -> list[str]:
    """Of all files below, and of links to folders, which are not followed."""

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot read the folder {error.filename}: {error.strerror}")

    names = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        below = Path(root).relative_to(folder)
        names += [(below / name).as_posix() for name in (*files, *links)]
    return names


def _read(file: Path) -> bytes:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise Damaged("cannot be read: it is not a regular file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror}") from error


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # a damaged archive raises a dozen kinds
        kind = kind_at(path)
        why = f"damaged ({damage(error)})" if kind == "a zip archive" else READ
        raise ValueError(f"{path} cannot be read: it is {kind}; {why}") from error


def _unpack(archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > _MAX_BYTES:
        raise Refused(f"unpacks to {size:,} bytes; at most {_MAX_BYTES:,} are read")
    try:
        return archive.read(name)
    except Exception as error:  # a damaged or encrypted archive raises a dozen kinds
        raise Damaged(f"cannot be read: {damage(error)}") from error
