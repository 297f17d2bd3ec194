"""Images that were decoded once, in a file of the cache, read a few at a time: no set has to fit.

The file holds uint8 pixels [n, c, h, w], then as JSON what else there is to know of them, then the
length of that in 8 bytes. A part of it is mapped into memory for as long as it is read.
"""

import json
import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mmd_ddm.runs.fingerprint import code_sha256, key_of
from mmd_ddm.runs.store import remembered_file

__all__ = ["Part", "Stored", "stored"]

_TAIL = 8
_AT_ONCE = 128  # images; around each that is read, the system maps up to 2 MiB


class Part(NamedTuple):
    """Some images on their way there.

    Attributes:
        pixels: uint8, [k, c, h, w].
        about: of them, each value a list of k.
    """

    pixels: UInt8[Tensor, "k c h w"]
    about: Mapping[str, list[Any]] = {}


class Stored:
    """What such a file holds, or some rows of it.

    Args:
        path: of the file, which may be removed meanwhile.

    Attributes:
        about: of all images, what their `Part` said, and of the whole what `stored` was given.

    Raises:
        ValueError: it is no such file.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = len(self._file) - _TAIL
        start = end - int.from_bytes(self._file[end:], "big")
        self.about: dict[str, Any] = json.loads(self._file[max(start, 0) : end])
        self._shape = tuple(self.about["shape"])
        if start != math.prod(self._shape):
            raise ValueError(f"{path} is damaged")
        self._rows = torch.arange(self._shape[0])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return torch.Size((len(self), *self._shape[1:]))

    def __getitem__(self, rows: Any) -> UInt8[Tensor, "..."]:
        """The pixels of these, in memory: an index, a slice, indices or a mask."""
        mapped = np.frombuffer(self._file, np.uint8, math.prod(self._shape)).reshape(self._shape)
        at = self._rows[rows].numpy()
        found = np.empty((at.size, *self._shape[1:]), np.uint8)
        for i in range(0, at.size, _AT_ONCE):
            found[i : i + _AT_ONCE] = mapped[at.reshape(-1)[i : i + _AT_ONCE]]
            if hasattr(mmap, "MADV_DONTNEED"):  # or what was read counts as held by this process
                self._file.madvise(mmap.MADV_DONTNEED)
        return torch.from_numpy(found.reshape(*at.shape, *self._shape[1:]))

    def take(self, rows: Int64[Tensor, " k"]) -> "Stored":
        """These rows, unread."""
        some = object.__new__(Stored)
        vars(some).update(vars(self) | {"_rows": self._rows[rows]})
        return some


def stored(
    name: str, about: Any, make: Callable[[], Iterable[Part]], end: Callable[[], dict[str, Any]]
) -> Stored:
    """The images that ``make`` gives, from the cache if they were made before.

    Args:
        name: words before the key of the file.
        about: what they depend on besides this code, as JSON values.
        make: gives them in parts.
        end: what to keep of the whole, asked at the end.

    Raises:
        Exception: whatever ``make`` raises; then nothing is kept.
    """

    def save(file: IO[bytes], make: Callable[[], Iterable[Part]]) -> None:
        shape, n, found = list[int](), 0, dict[str, list[Any]]()
        for part in make():
            file.write(part.pixels.contiguous().numpy().data)
            shape, n = [*part.pixels.shape[1:]], n + len(part.pixels)
            for key, values in part.about.items():
                found.setdefault(key, []).extend(values)
        told = json.dumps({**found, **end(), "shape": [n, *shape]}).encode()
        file.write(told + len(told).to_bytes(_TAIL, "big"))

    key = key_of(code_sha256(), about)
    return remembered_file(
        "images", f"{name}-{key}.pixels", lambda: make, save, Stored, together=False
    )
