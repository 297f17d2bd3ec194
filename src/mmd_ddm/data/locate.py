"""Where a source lies: what a person named, as files here or as a set of the hub.

A public set by ``NAME`` is its training part, ``NAME-heldout`` the part that no model is trained
on, ``NAME:COUNT`` a random choice of it, the same every time; ``NAME:PATH`` reads a copy there.
Others are looked for below ``$MMD_DDM_DATA`` (by default, the current folder), as

- ``NAME``, ``NAME.zip`` or ``NAME.parquet``, likewise ``NAME-heldout``: pictures or tables,
- the folder of that part in it (``NAME/train``), or its tables whose names begin so, which is how
  ``hf download --repo-type dataset`` lays a set down,

and else streamed from the Hugging Face hub, as ``hub:OWNER/NAME`` is.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmd_ddm.data.choose import find_place
from mmd_ddm.data.public_sets import DATASETS, HELDOUT, Request
from mmd_ddm.data.tables import Hub

__all__ = ["BUNDLED", "Place", "fingerprint", "locate", "missing_words"]

_BUNDLED_DIR = Path(__file__).parents[1] / "bundled" / "fashion-mnist"
BUNDLED = {
    "fashion-mnist": _BUNDLED_DIR / "reference-images-idx3-ubyte.gz",
    "fashion-mnist-heldout": _BUNDLED_DIR / "heldout-images-idx3-ubyte.gz",
}
_HUB = "hub:"
_TRAIN = "train"


class Place(NamedTuple):
    """Where it lies.

    Attributes:
        paths: a folder, archive or file, or several tables of one set; none of the hub.
        asked: what is chosen of it.
        hub: the set, if it is there.
    """

    paths: Sequence[Path]
    asked: Sequence[str] = ()
    hub: Hub | None = None


def locate(source: str, request: Request | None) -> Place:
    """Where a source lies.

    Args:
        source: as the person named it.
        request: that as a public set, if it is one.

    Raises:
        ValueError: nowhere.
    """
    if request is not None:
        return _locate_public(request)
    if source.startswith(_HUB):
        hub_id, *asked = source[len(_HUB) :].split(":")
        return Place([], asked, Hub(hub_id))
    found = (BUNDLED[source], list[str]()) if source in BUNDLED else find_place(source)
    if found is None:
        raise ValueError(
            f"no data at {source or 'an empty name'}: give a folder or zip of images, a .parquet, "
            "Arrow or WebDataset .tar file, an IDX, .npy or .npz file, hub:OWNER/NAME, or one of "
            f"{', '.join((*BUNDLED, *DATASETS))}"
        )
    return Place([found[0]], found[1])


def missing_words(request: Request | None) -> str:
    """What is said first where a set could not be had from the hub."""
    if request is None:
        return ""
    root = Path(os.environ.get("MMD_DDM_DATA", ".")).resolve()
    return f"{request.name} is not in {root} (set MMD_DDM_DATA to the folder that holds it), and "


def fingerprint(paths: Sequence[Path]) -> list[Any]:
    """What these files look like from outside: their names, sizes and times."""
    seen = ((str(path), path.stat() if path.exists() else path.lstat()) for path in paths)
    return [(name, about.st_size, about.st_mtime_ns) for name, about in seen]


def _locate_public(request: Request) -> Place:
    if request.place:
        if (place := find_place(request.place)) is None:
            raise ValueError(f"no {request.name} at {request.place}: give a folder, zip or table")
        return Place([place[0]], place[1])
    part = request.known.heldout if request.heldout else _TRAIN
    if local := _local(request, part):
        return Place(local)
    known = request.known
    return Place([], [known.column], Hub(known.hub_id, part, request.count, request.name))


def _local(request: Request, part: str) -> list[Path]:
    root = Path(os.environ.get("MMD_DDM_DATA", "."))
    whole = root / request.name
    own = root / f"{request.name}{HELDOUT}" if request.heldout else whole
    for suffix in (".zip", ".parquet"):
        if (file := own.with_name(own.name + suffix)).is_file():
            return [file]
    if request.heldout and own.is_dir():
        return [own]
    if (whole / part).is_dir():
        return [whole / part]
    tables = [
        path
        for path in sorted(whole.rglob("*.parquet"))
        if path.name.startswith(part) or part in path.relative_to(whole).parts
    ]
    return tables or ([whole] if whole.is_dir() and not request.heldout else [])
