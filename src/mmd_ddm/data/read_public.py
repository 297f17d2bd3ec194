"""Public data sets by name, from a local copy or else from the hub, cut as the field cuts them.

``NAME`` is the training part, ``NAME-heldout`` the part that no model is trained on, and
``NAME:COUNT`` a random choice of it, the same every time; ``NAME:PATH`` reads a copy there. Others
are looked for below ``$MMD_DDM_DATA`` (by default, the current folder), as

- ``NAME``, ``NAME.zip`` or ``NAME.parquet``, likewise ``NAME-heldout``: pictures or tables,
- the folder of that part in it (``NAME/train``), or its tables whose names begin so, which is how
  ``hf download --repo-type dataset`` lays a set down,

and else streamed from the Hugging Face hub by the package `datasets`. Pictures are decoded once,
one at a time, into a file of the cache that is mapped into memory afterwards: no set has to fit.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.choose import find_place
from mmd_ddm.data.decode import Cut, Files
from mmd_ddm.data.notes import Notes
from mmd_ddm.data.parquet import cell, choose_tables, read_rows
from mmd_ddm.data.pictures import decoded, each_picture
from mmd_ddm.data.public_sets import HELDOUT, Request
from mmd_ddm.models.find import shorten
from mmd_ddm.runs.fingerprint import code_sha256, key_of
from mmd_ddm.runs.store import remembered_file

__all__ = ["read_public"]

_TRAIN = "train"
_SHUFFLED = 10_000  # undecoded pictures held while a stream is shuffled


def read_public(
    request: Request, shape: tuple[int, int, int] | None, read: ReadConfig, notes: Notes
) -> tuple[UInt8[Tensor, "n c h w"], tuple[str, ...]]:
    """The pictures of a part of a public set, and what there is to tell; of a local one all.

    Args:
        request: which.
        shape: (c, h, w) that is needed; None takes the set's own.
        read: what is done instead of refusing; ``resize`` scales to another shape.
        notes: used while the pictures are decoded for the first time.

    Raises:
        ValueError: not at hand, neither here nor on the hub; pictures that are refused.
    """
    known, shape = request.known, shape or request.known.shape
    if shape != known.shape and not read.resize:
        own, wanted = ("x".join(map(str, size)) for size in (known.shape, shape))
        raise ValueError(
            f"{request.name} has images of {own}; the model takes {wanted}; pass --resize to "
            "convert them"
        )
    found = _find(request)
    if found is None:
        about: list[Any] = [known.hub_id, _part(request), request.count]
        pictures = _stream(request)
        notes.taken = f"split {_part(request)}, column {known.column} of {known.hub_id}"
    else:
        paths, asked = found
        about = [asked, [(str(path), s.st_size, s.st_mtime_ns) for path, s in _stats(paths)]]
        if len(paths) == 1:
            pictures = each_picture(paths[0], asked, notes)
        else:
            pictures = read_rows(paths, asked, request.name, notes)
    read = replace(read, resize=True)
    # As torchvision's Resize in the DDIM code.
    cut = Cut(known.crop, Image.Resampling.BILINEAR)

    def save(file: IO[bytes], pictures: Files) -> None:
        for _, pixels in decoded(pictures, shape, read, notes, cut):
            file.write(pixels.contiguous().numpy().data)
        if not file.tell():
            raise ValueError(f"{request.name} holds no images{notes.instead}")
        told = json.dumps(notes.lines(request.name, file.tell() // math.prod(shape))).encode()
        file.write(told + len(told).to_bytes(8, "big"))

    def load(path: Path) -> tuple[Tensor, tuple[str, ...]]:
        # Copy-on-write, so that torch may treat the array as writable.
        content = np.memmap(path, np.uint8, "c")
        end = len(content) - 8
        start = end - int.from_bytes(content[end:].tobytes(), "big")
        told = json.loads(content[start:end].tobytes())
        return torch.from_numpy(content[:start].reshape(-1, *shape)), tuple(told)

    key = key_of(code_sha256(), shape, known.crop, read.background, read.skip_damaged, about)
    name = f"{request.name}-{key}.pixels"
    return remembered_file("images", name, lambda: pictures, save, load, together=False)


def _part(request: Request) -> str:
    return request.known.heldout if request.heldout else _TRAIN


def _find(request: Request) -> tuple[list[Path], list[str]] | None:
    """The folder, archive or tables of a local copy, and what is chosen of it; None if none."""
    if request.place:
        if (place := find_place(request.place)) is None:
            raise ValueError(f"no {request.name} at {request.place}: give a folder, zip or table")
        return [place[0]], place[1]
    local = _local(request)
    return (local, []) if local else None


def _local(request: Request) -> list[Path]:
    root = Path(os.environ.get("MMD_DDM_DATA", "."))
    whole, part = root / request.name, _part(request)
    own = root / f"{request.name}{HELDOUT}" if request.heldout else whole
    for suffix in (".zip", ".parquet"):
        if (file := own.with_name(own.name + suffix)).is_file():
            return [file]
    if request.heldout and own.is_dir():
        return [own]
    if (whole / part).is_dir():
        return [whole / part]
    if whole.is_dir() and (tables := choose_tables(whole, part)):
        return tables
    return [whole] if whole.is_dir() and not request.heldout else []


def _stats(paths: list[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            yield file, file.stat() if file.exists() else file.lstat()


def _stream(request: Request) -> Files:
    """The pictures' files from the hub."""
    known, part = request.known, _part(request)
    missing = (
        f"{request.name} is not in {Path(os.environ.get('MMD_DDM_DATA', '.')).resolve()} (set "
        f"MMD_DDM_DATA to the folder that holds it), and cannot be taken from the hub"
    )
    try:
        from datasets import Image as Picture
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(f"{missing} without: pip install 'mmd-ddm[data]'") from error
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(known.hub_id, timeout=20)  # asked first: datasets tries for minutes
        rows = load_dataset(known.hub_id, split=part, streaming=True)
        rows = rows.select_columns([known.column]).cast_column(known.column, Picture(decode=False))
        if request.count:
            rows = rows.shuffle(seed=0, buffer_size=_SHUFFLED).take(request.count)
        for i, row in enumerate(rows):
            yield f"{known.hub_id}:{i}", partial(cell, row[known.column])
    except Exception as error:  # the hub's clients, and their transports, raise a dozen kinds
        raise ValueError(
            f"{missing} (offline? elsewhere: hf download --repo-type dataset {known.hub_id} "
            f"--local-dir {request.name}): {shorten(error)}"
        ) from error
