"""Images in one array: .npy, .npz, and IDX (MNIST's format), gzipped or not, a block at a time."""

import gzip
import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.lib import format as npy
from PIL import Image
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.choose import choose_name
from mmd_ddm.data.decode import MODES, Refused, fit
from mmd_ddm.data.kinds import READ, damage, kind_of
from mmd_ddm.data.labels import labels_array, twin_of
from mmd_ddm.data.notes import Notes, listed

__all__ = ["fit_array", "read_array", "read_labels"]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = {".npy": "a NumPy array", ".npz": "a zip archive", ".gz": "a gzip file"}
_BLOCK = 2**24  # bytes of an array read at once


def read_array(path: Path, asked: list[str], notes: Notes) -> Iterator[UInt8[np.ndarray, "..."]]:
    """The array of images of a file, some rows at a time.

    Args:
        path: of the file, told by its ending; any other than .npy, .npz and .gz is IDX.
        asked: the array that was chosen of an .npz.
        notes: gets which is taken.

    Raises:
        ValueError: something else, damaged, no images, or several arrays of which none is chosen.
    """
    notes.taken = f"the array of {path.name}"
    with _explained(path), ExitStack() as stack:
        file = _enter(path, stack)
        if isinstance(file, zipfile.ZipFile):
            name = _array_of(file, asked, path)
            notes.taken = f"array {name} of {path.name}"
            file = stack.enter_context(file.open(f"{name}.npy"))
        shape, kind = _head(path, file)
        if kind != np.uint8 or len(shape) not in (3, 4):
            raise Refused(
                f"holds an array {list(shape)} of {kind}; uint8 [n, h, w] or [n, h, w, c] is "
                "needed"
            )
        if not math.prod(shape):
            raise Refused("holds no images")
        if len(shape) == 4 and shape[1] in MODES and shape[3] not in MODES:
            raise Refused(f"holds {list(shape)}, channels first; put them last")
        yield from _blocks(file, shape)


def read_labels(path: Path, asked: list[str]) -> np.ndarray:
    """The labels of such an array of images, from beside it.

    Raises:
        ValueError: there are none, or none that could be read.
    """
    if path.suffix.lower() != ".npz":
        path = twin_of(path)
        with _explained(path), ExitStack() as stack:
            file = _enter(path, stack)
            return np.concatenate([*_blocks(file, _head(path, file)[0])])
    with _explained(path), ExitStack() as stack:
        archive: Any = _enter(path, stack)
        name = labels_array(_names(archive), _array_of(archive, asked, path))
        with archive.open(f"{name}.npy") as member:
            return npy.read_array(member, allow_pickle=False)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Within, whatever a file raises becomes one line about it."""
    try:
        yield
    except Refused as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # a damaged file raises a dozen kinds
        with path.open("rb") as file:
            kind = kind_of(file.read(512))
        if kind != _KINDS.get(path.suffix.lower(), "an IDX file"):
            raise ValueError(f"{path} cannot be read: it is {kind}; {READ}") from error
        raise ValueError(
            f"{path} cannot be read: it is {kind}, damaged ({damage(error)})"
        ) from error


def _enter(path: Path, stack: ExitStack) -> Any:
    """The file, unpacked where it is one; or the archive."""
    file = stack.enter_context(path.open("rb"))
    ending = path.suffix.lower()
    if ending == ".npz":
        return stack.enter_context(zipfile.ZipFile(file))
    return stack.enter_context(gzip.open(file)) if ending == ".gz" else file


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]


def _array_of(archive: zipfile.ZipFile, asked: list[str], path: Path) -> str:
    """The name of that of images."""
    found = names = _names(archive)
    if not asked and len(names) > 1:
        found = [name for name in names if _is_images(archive, name)]
    if not found:
        raise Refused(f"holds no array of images; its arrays are {listed(names, 10)}")
    return choose_name(found, asked, str(path), "array")


def _is_images(archive: Any, name: str) -> bool:
    with archive.open(f"{name}.npy") as member:
        if npy.read_magic(member) not in _HEADERS:
            return False
        member.seek(0)
        shape, kind = _npy_head(member)
    return kind == np.uint8 and len(shape) in (3, 4)


def _head(path: Path, file: io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that follows."""
    return _npy_head(file) if path.suffix.lower() in (".npy", ".npz") else _idx_head(file)


def _npy_head(file: io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    shape, by_columns, kind = _HEADERS[npy.read_magic(file)](file)
    if kind.hasobject:
        raise Refused(
            "cannot be read: it is a NumPy array, Python objects, which are never loaded: save it "
            "as uint8"
        )
    if by_columns and len(shape) > 1:
        raise Refused("is stored by columns; save numpy.ascontiguousarray of it")
    return shape, kind


def _idx_head(file: io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    """IDX: two zero bytes, the type (8 = uint8), the rank, then big-endian sizes and the data."""
    head = file.read(4)
    if head[:3] != b"\0\0\x08":
        unpacked = "unpacked, " * isinstance(file, gzip.GzipFile)
        kind = kind_of(head + file.read(508))
        raise Refused(f"cannot be read: {unpacked}it is {kind}; {READ}")
    sizes = np.frombuffer(file.read(4 * head[3]), ">u4", head[3]).tolist()
    return tuple(sizes), np.dtype(np.uint8)


def _blocks(file: io.BufferedIOBase, shape: tuple[int, ...]) -> Iterator[UInt8[np.ndarray, "..."]]:
    """The rows of an array of bytes that follows.

    No more is unpacked than the sizes announce, whatever a compressed file would unpack to.
    """
    each, missing = math.prod(shape[1:]), shape[0]
    while missing:
        k = min(missing, max(_BLOCK // max(each, 1), 1))
        content = file.read(k * each)
        missing -= k
        if len(content) < k * each or (not missing and file.read(1)):
            less = f"{(shape[0] - missing - k) * each + len(content):,}"
            less = "more" if len(content) == k * each else less
            raise Refused(
                f"cannot be read: {less} bytes follow where its head announces {list(shape)}"
            )
        yield np.frombuffer(content, np.uint8).reshape(k, *shape[1:])


def fit_array(
    array: UInt8[np.ndarray, "..."],
    path: Path,
    shape: tuple[int, int, int] | None,
    read: ReadConfig,
    notes: Notes,
) -> UInt8[Tensor, "n c h w"]:
    """Images of an array in this shape.

    Args:
        array: [n, h, w] or [n, h, w, c].
        path: for messages.
        shape: (c, h, w) of every image; None takes the array's own.
        read: what is done instead of refusing.
        notes: gets how many were enlarged.

    Raises:
        ValueError: images of another shape.
    """
    images = array if array.ndim == 4 else array[..., None]
    height, width, channels = images.shape[1:]
    if shape in (None, (channels, height, width)):
        return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
    if channels not in MODES or shape[0] not in MODES or not read.resize:
        raise ValueError(
            f"{path} holds images of {channels}x{height}x{width}; the model takes "
            f"{'x'.join(map(str, shape))}; pass --resize to crop, scale and convert them"
        )
    if height < shape[1] or width < shape[2]:
        notes.enlarged += [(height, width)] * len(images)
    pictures = (Image.fromarray(image[..., 0] if channels == 1 else image) for image in images)
    fitted = [fit(picture.convert(MODES[shape[0]]), shape, read) for picture in pictures]
    return torch.stack([one.pixels for one in fitted])
