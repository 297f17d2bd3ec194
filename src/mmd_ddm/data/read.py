"""From a source, as a person names it, to its images: found, decoded once, and told about."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.arrays import fit_array, read_array, read_labels
from mmd_ddm.data.beside import files_beside
from mmd_ddm.data.choose import SUFFIXES, TABLES
from mmd_ddm.data.decode import WHOLE, Cut, Files
from mmd_ddm.data.labels import (
    Labels,
    captioned,
    captions_of_pictures,
    labelled,
    labels_of_pictures,
    numbered,
)
from mmd_ddm.data.locate import Place, fingerprint, locate, missing_words
from mmd_ddm.data.notes import Notes
from mmd_ddm.data.pictures import decoded, each_picture, find_pictures, prefix_of
from mmd_ddm.data.public_sets import Request, parse_request
from mmd_ddm.data.stored import Part, Stored, stored
from mmd_ddm.data.tables import Hub, Wanted, read_hub, read_tables
from mmd_ddm.runs.progress import Progress

__all__ = ["Found", "read_source"]

_Shape = tuple[int, int, int]
_STEP = 256  # pictures between two words to a progress bar


@dataclass(frozen=True)
class Found:
    """What was read.

    Attributes:
        store: the images.
        told: lines about it.
        skipped: names of the files there that were taken for no images.
        labels: of each, if they were asked for.
        captions: likewise.
        count: of them, that are wanted.
    """

    store: Stored
    told: tuple[str, ...]
    skipped: Sequence[str]
    labels: Labels | None
    captions: tuple[str, ...]
    count: int


@dataclass
class _Opened:
    """A source of which nothing is decoded yet.

    Attributes:
        about: what its pixels depend on, as JSON values.
        files: its pictures; None of an array.
        total: how many, if that is known.
        beside: labels and captions of these images, once they are stored.
    """

    about: Any
    files: Callable[[], Files] | None
    beside: Callable[[Stored], tuple[Labels | None, tuple[str, ...]]]
    total: int = 0


def read_source(
    source: str, shape: _Shape | None, read: ReadConfig, wanted: Wanted, progress: Progress
) -> Found:
    """Read all images of a source; the arguments, and what is raised, are `load_images`'."""
    request, notes, cut = parse_request(source), Notes(), WHOLE
    if request is not None:
        shape = _shape_of(request, shape, read)
        # As torchvision's Resize in the DDIM code.
        cut = Cut(request.known.crop, Image.Resampling.BILINEAR)
        read = replace(read, resize=True)
    place = locate(source, request)
    opened = _open(place, source, request, wanted, notes)

    def parts() -> Iterable[Part]:
        if opened.files is None:
            for block in read_array(place.paths[0], [*place.asked], notes):
                yield Part(fit_array(block, place.paths[0], shape, read, notes))
            return
        n = 0
        with progress.bar("reading images", opened.total) as bar:
            for example, pixels in decoded(opened.files(), shape, read, notes, cut):
                of_tables = {"labels": [example.label], "captions": [example.caption]}
                yield Part(pixels[None], {"names": [example.name], **of_tables})
                n += 1
                if n % _STEP == 0 or n == opened.total:
                    bar(done=n)
        if not n:
            where, endings = place.paths[0] if place.paths else source, ", ".join(sorted(SUFFIXES))
            raise ValueError(f"{where} holds no images ({endings}){notes.instead}")

    def end() -> dict[str, Any]:
        own = {"taken": notes.taken, "classes": notes.classes}
        return {**own, "damaged": notes.damaged, "enlarged": notes.enlarged}

    about = [opened.about, shape, cut, read.resize, read.background, read.skip_damaged]
    name = request.name if request else "images"
    kept = stored(name, about, parts, end)
    for key in ("taken", "damaged", "enlarged"):
        setattr(notes, key, kept.about[key])
    labels, captions = opened.beside(kept)
    told = notes.lines(source, len(kept))
    count = (request and request.count) or len(kept)
    return Found(kept, told, notes.skipped, labels, captions, count)


def _shape_of(request: Request, shape: _Shape | None, read: ReadConfig) -> _Shape:
    known = request.known.shape
    if shape not in (None, known) and not read.resize:
        own, wanted = ("x".join(map(str, size)) for size in (known, shape or known))
        raise ValueError(
            f"{request.name} has images of {own}; the model takes {wanted}; pass --resize to "
            "convert them"
        )
    return shape or known


def _open(
    place: Place, source: str, request: Request | None, wanted: Wanted, notes: Notes
) -> _Opened:
    asked = [*place.asked]
    if place.hub is not None:
        stream = partial(_streamed, place.hub, asked, request, wanted, notes)
        return _of_rows([place.hub, asked], stream, source, wanted)
    path, tables = place.paths[0], [*place.paths]
    if len(tables) == 1:
        if path.is_dir() or path.suffix.lower() == ".zip":
            names, tables = find_pictures(path, asked, notes)
            if not tables:
                return _of_pictures(path, names, asked, wanted, notes)
        elif path.suffix.lower() not in TABLES:
            return _of_array(path, asked, wanted)
    name = str(path) if len(place.paths) == 1 else source
    taken = notes.taken

    def files() -> Files:
        notes.taken = taken
        return read_tables(tables, [*asked], name, wanted, notes)

    return _of_rows([fingerprint(tables), asked], files, name, wanted)


def _streamed(
    hub: Hub, asked: list[str], request: Request | None, wanted: Wanted, notes: Notes
) -> Files:
    try:
        yield from read_hub(hub, [*asked], wanted, notes)
    except ValueError as error:
        raise ValueError(f"{missing_words(request)}{error}") from error


def _of_rows(about: Any, files: Callable[[], Files], source: str, wanted: Wanted) -> _Opened:
    """Whose labels and captions are kept with the images."""

    def beside(kept: Stored) -> tuple[Labels | None, tuple[str, ...]]:
        said, names = kept.about, kept.about["names"]
        labels = captions = None
        if wanted.labels:
            labels = labelled(said["labels"], said["classes"], source, names)
        if wanted.captions:
            captions = captioned(said["captions"], source, names)
        return labels, captions or ()

    return _Opened([about, wanted], files, beside)


def _of_pictures(
    path: Path, names: Sequence[str], asked: list[str], wanted: Wanted, notes: Notes
) -> _Opened:
    """Whose labels and captions are read first, so that their lack is said at once."""
    if asked and names:
        raise ValueError(f"{path} holds no {asked[0]!r} that could be chosen")
    labels = labels_of_pictures(path, names) if wanted.labels and names else None
    captions = captions_of_pictures(path, names) if wanted.captions and names else ()
    if any(wanted):
        used = files_beside(names)
        notes.skipped = [name for name in notes.skipped if name not in used]
    prefix, number = prefix_of(path), {name: i for i, name in enumerate(names)}

    def beside(kept: Stored) -> tuple[Labels | None, tuple[str, ...]]:
        rows = [number[name[len(prefix) :]] for name in kept.about["names"]]
        of_these = labels and Labels(labels.numbers[torch.tensor(rows)], labels.classes)
        return of_these, tuple(captions[i] for i in rows) if captions else ()

    files = [path / name for name in names] if path.is_dir() else [path]
    about = [str(path.absolute()), names, fingerprint(files)]
    return _Opened(about, partial(each_picture, path, names), beside, len(names))


def _of_array(path: Path, asked: list[str], wanted: Wanted) -> _Opened:
    if wanted.captions:
        raise ValueError(f"{path} holds no captions: arrays have none")
    labels = read_labels(path, [*asked]) if wanted.labels else None

    def beside(kept: Stored) -> tuple[Labels | None, tuple[str, ...]]:
        found = None if labels is None else numbered(labels, str(path), len(kept))
        return found, ()

    return _Opened([fingerprint([path]), asked], None, beside)
