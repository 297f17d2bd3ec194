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

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mmd_ddm.data.parquet import choose_tables
from mmd_ddm.data.pictures import decode, each_picture
from mmd_ddm.data.public_sets import HELDOUT, Request
from mmd_ddm.models.find import shorten
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.store import remembered_file

__all__ = ["read_public"]

_TRAIN = "train"
_SHUFFLED = 10_000  # undecoded pictures held while a stream is shuffled


def read_public(
    request: Request, shape: tuple[int, int, int] | None, resize: bool
) -> UInt8[Tensor, "n c h w"]:
    """The pictures of a part of a public set; of a local one all, whatever its count.

    Args:
        request: which.
        shape: (c, h, w) that is needed; None takes the set's own.
        resize: scale to another shape than the set's own instead of refusing.

    Raises:
        ValueError: not at hand, neither here nor on the hub; pictures that are refused.
    """
    known, shape = request.known, shape or request.known.shape
    if shape != known.shape and not resize:
        own, wanted = ("x".join(map(str, size)) for size in (known.shape, shape))
        raise ValueError(
            f"{request.name} has images of {own}; the model takes {wanted}; pass --resize to "
            "convert them"
        )
    found = _find(request)
    if found is None:
        about: list[Any] = [known.hub_id, _part(request), request.count]
        pictures = _stream(request)
    else:
        about = [(str(path), s.st_size, s.st_mtime_ns) for path, s in _stats(found)]
        pictures = chain.from_iterable(each_picture(path, []) for path in found)

    def save(file: IO[bytes], pictures: Iterator[tuple[str, bytes]]) -> None:
        for name, content in pictures:
            pixels = decode(
                name,
                content,
                shape,
                resize=True,
                crop=known.crop,
                resample=Image.Resampling.BILINEAR,  # as torchvision's Resize in the DDIM code
            )
            file.write(pixels.contiguous().numpy().data)
        if not file.tell():
            raise ValueError(f"{request.name} holds no images")

    def read(path: Path) -> Tensor:
        # Copy-on-write, so that torch may treat the array as writable.
        return torch.from_numpy(np.memmap(path, np.uint8, "c").reshape(-1, *shape))

    name = f"{request.name}-{key_of(shape, known.crop, about)}.uint8"
    return remembered_file("images", name, lambda: pictures, save, read, together=False)


def _part(request: Request) -> str:
    return request.known.heldout if request.heldout else _TRAIN


def _find(request: Request) -> list[Path] | None:
    """The folders, archives or tables of a local copy; None if there is none."""
    if request.place:
        if not Path(request.place).exists():
            raise ValueError(f"no {request.name} at {request.place}: give a folder, zip or table")
        return [Path(request.place)]
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
    return [whole] if whole.is_dir() and not request.heldout else None


def _stats(paths: list[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            yield file, file.stat()


def _stream(request: Request) -> Iterator[tuple[str, bytes]]:
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
            yield f"{known.hub_id}:{i}", row[known.column]["bytes"]
    except Exception as error:  # the hub's clients, and their transports, raise a dozen kinds
        raise ValueError(
            f"{missing} (offline? elsewhere: hf download --repo-type dataset {known.hub_id} "
            f"--local-dir {request.name}): {shorten(error)}"
        ) from error
