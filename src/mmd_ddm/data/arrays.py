"""Images in one array: .npy, .npz, and IDX (MNIST's format), gzipped or not."""

import gzip
import io
import math
import zipfile
from pathlib import Path
from typing import IO

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

__all__ = ["fit_array", "read_array"]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = {".npy": "a NumPy array", ".npz": "a zip archive", ".gz": "a gzip file"}


def read_array(
    path: Path, asked: list[str], notes: Notes, *, labels: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The array of a file, and that of the labels if they are asked for.

    Args:
        path: of the file, told by its ending; any other than .npy, .npz and .gz is IDX.
        asked: the array that was chosen of an .npz.
        notes: gets which is taken.
        labels: read them as well.

    Raises:
        ValueError: something else, damaged, several arrays of which none is chosen, or no labels.
    """
    ending, head = path.suffix.lower(), b""
    notes.taken = f"the array of {path.name}"
    try:
        with path.open("rb") as file:
            head = file.read(512)
            file.seek(0)
            if ending == ".npz":
                return _read_npz(file, asked, path, notes, labels)
            if ending == ".npy":
                array = npy.read_array(file, allow_pickle=False)
            else:
                array = _read_idx(gzip.open(file) if ending == ".gz" else file)
    except Refused as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # a damaged file raises a dozen kinds
        kind = kind_of(head)
        if kind != _KINDS.get(ending, "an IDX file"):
            raise ValueError(f"{path} cannot be read: it is {kind}; {READ}") from error
        objects = "Python objects, which are never loaded: save it as uint8"
        why = objects if "allow_pickle" in str(error) else f"damaged ({damage(error)})"
        raise ValueError(f"{path} cannot be read: it is {kind}, {why}") from error
    return array, read_array(twin_of(path), [], Notes())[0] if labels else None


def _read_npz(
    file: IO[bytes], asked: list[str], path: Path, notes: Notes, labels: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    with zipfile.ZipFile(file) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
        found = names
        if not asked and len(names) > 1:
            found = [name for name in names if _is_images(archive, name)]
        if not found:
            raise Refused(f"holds no array of images; its arrays are {listed(names, 10)}")
        name = choose_name(found, asked, str(path), "array")
        notes.taken = f"array {name} of {path.name}"
        of_labels = [labels_array(names, name)] if labels else []
        arrays = []
        for one in (name, *of_labels):
            with archive.open(f"{one}.npy") as member:
                arrays.append(npy.read_array(member, allow_pickle=False))
        return arrays[0], arrays[1] if labels else None


def _is_images(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(f"{name}.npy") as member:
        read_header = _HEADERS.get(npy.read_magic(member))
        shape, _, dtype = read_header(member) if read_header else ((), False, None)
    return dtype == np.uint8 and len(shape) in (3, 4)


def _read_idx(file: io.BufferedIOBase) -> np.ndarray:
    """IDX: two zero bytes, the type (8 = uint8), the rank, then big-endian sizes and the data.

    No more is unpacked than the sizes announce, whatever a compressed file would unpack to.
    """
    head = file.read(4)
    if head[:3] != b"\0\0\x08":
        unpacked = "unpacked, " * isinstance(file, gzip.GzipFile)
        kind = kind_of(head + file.read(508))
        raise Refused(f"cannot be read: {unpacked}it is {kind}; {READ}")
    sizes = np.frombuffer(file.read(4 * head[3]), ">u4", head[3]).tolist()
    content = file.read(math.prod(sizes) + 1)
    if len(content) != math.prod(sizes):
        less = f"{len(content):,}" if len(content) < math.prod(sizes) else "more"
        raise Refused(f"cannot be read: {less} bytes follow where its head announces {sizes}")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def fit_array(
    array: np.ndarray,
    path: Path,
    shape: tuple[int, int, int] | None,
    read: ReadConfig,
    notes: Notes,
) -> UInt8[Tensor, "n c h w"]:
    """The images of an array in this shape.

    Args:
        array: uint8, [n, h, w] or [n, h, w, c].
        path: for messages.
        shape: (c, h, w) of every image; None takes the array's own.
        read: what is done instead of refusing.
        notes: gets how many were enlarged.

    Raises:
        ValueError: no images, or images of another kind or shape.
    """
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(
            f"{path} holds an array {list(array.shape)} of {array.dtype}; "
            "uint8 [n, h, w] or [n, h, w, c] is needed"
        )
    images = array if array.ndim == 4 else array[..., None]
    if images.size == 0:
        raise ValueError(f"{path} holds no images")
    height, width, channels = images.shape[1:]
    if height in MODES and channels not in MODES:
        raise ValueError(f"{path} holds {list(array.shape)}, channels first; put them last")
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
