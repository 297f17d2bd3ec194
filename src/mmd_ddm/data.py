"""Images from where people keep them, as one uint8 tensor, and their endless seeded order.

A *source* is one of

- a folder of images (png, jpg, jpeg, webp, bmp), searched in its sub-folders, in sorted order,
- a zip archive of such images (read without extracting),
- an IDX file (MNIST's format), gzipped or not,
- an ``.npy`` or ``.npz`` file with an array [n, h, w] or [n, h, w, c] of uint8,
- the name of a bundled set: ``fashion-mnist`` or ``fashion-mnist-heldout``.
"""

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mmd_ddm.rng import generator

__all__ = ["BUNDLED", "ImageSet", "batch", "load_images"]

_BUNDLED_DIR = Path(__file__).parent / "bundled" / "fashion-mnist"
BUNDLED = {
    "fashion-mnist": _BUNDLED_DIR / "reference-images-idx3-ubyte.gz",
    "fashion-mnist-heldout": _BUNDLED_DIR / "heldout-images-idx3-ubyte.gz",
}
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class ImageSet:
    """Images of one size.

    Attributes:
        pixels: uint8, [n, c, h, w].
        source: where they came from, as the person named it.
    """

    pixels: UInt8[Tensor, "n c h w"]
    source: str

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, n: int) -> "ImageSet":
        """At most n of them, chosen at random but always the same: sources are often sorted."""
        if n >= len(self):
            return self
        order = torch.randperm(len(self), generator=generator(0, 0, 0, "subset"))
        return ImageSet(self.pixels[order[:n]], self.source)

    @property
    def sha256(self) -> str:
        """Of the pixels and their shape; what caches are keyed by."""
        digest = hashlib.sha256(str(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        return digest.hexdigest()


def load_images(
    source: str | Path, shape: tuple[int, int, int] | None = None, *, resize: bool = False
) -> ImageSet:
    """Read all images of a source.

    Args:
        source: see the module's docstring.
        shape: (c, h, w) that every image must have. Without it, the first image decides the
            size and all are read in colour.
        resize: centre-crop pictures to the aspect ratio of ``shape`` and scale them, instead of
            refusing; arrays must fit.

    Raises:
        ValueError: nothing there, no image in it, an unreadable image, a wrong size or number of
            channels. The message names the file.
    """
    path = BUNDLED.get(str(source), Path(source))
    if not str(source) or not path.exists():
        raise ValueError(
            f"no data at {source or 'an empty name'}: give a folder or zip of images, an IDX, "
            f".npy or .npz file, or one of {', '.join(BUNDLED)}"
        )
    if path.is_dir() or path.suffix.lower() == ".zip":
        pixels = _read_pictures(path, shape, resize)
    else:
        pixels = _fit_array(_read_array(path), path, shape)
    if len(pixels) == 0:
        raise ValueError(f"{source} holds no images")
    return ImageSet(pixels, str(source))


def batch(n: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The indices of one batch of an endless order, in which every epoch has an order of its own.

    Named by (seed, step) alone, so that a resumed run continues the order.

    Args:
        n: how many images there are.
        batch_size: indices a batch; batches run across the end of an epoch.
        seed: of the order.
        step: which batch.
    """
    parts: list[Tensor] = []
    position, missing = step * batch_size, batch_size
    while missing:
        order = _order(n, seed, position // n)
        parts.append(order[position % n : position % n + missing])
        position, missing = position + len(parts[-1]), missing - len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, 0, epoch, "order"))


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every image file in a folder or zip, in sorted order."""
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES):
            try:
                yield str(file), file.read_bytes()
            except OSError as error:
                raise ValueError(f"cannot read {file}: {error.strerror}") from error
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in _SUFFIXES:
                    yield f"{path}:{name}", archive.read(name)
    except Exception as error:  # a damaged or encrypted archive raises a dozen kinds
        raise ValueError(f"cannot read the archive {path}: {error}") from error


def _read_pictures(
    path: Path, shape: tuple[int, int, int] | None, resize: bool
) -> UInt8[Tensor, "n c h w"]:
    pictures: list[Tensor] = []
    for name, content in _entries(path):
        if shape is None and pictures:
            first = pictures[0].shape
            shape = (first[0], first[1], first[2])
        pictures.append(_decode(name, content, shape, resize))
    if not pictures:
        raise ValueError(f"{path} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return torch.stack(pictures)


def _decode(
    name: str, content: bytes, shape: tuple[int, int, int] | None, resize: bool
) -> UInt8[Tensor, "c h w"]:
    channels = 3 if shape is None else shape[0]
    if channels not in _MODES:
        raise ValueError(f"{name}: a picture has 1 or 3 channels; the model takes {channels}")
    picture = _open(name, content, _MODES[channels], resize)
    if shape is not None and (picture.height, picture.width) != shape[1:]:
        if not resize:
            raise ValueError(
                f"{name} is {picture.width}x{picture.height} pixels; the model takes "
                f"{shape[2]}x{shape[1]}; pass --resize to crop and scale"
            )
        picture = _crop_and_scale(picture, shape[1], shape[2])
    array = np.array(picture).reshape(picture.height, picture.width, channels)
    return torch.from_numpy(array).permute(2, 0, 1)


def _open(name: str, content: bytes, mode: str, resize: bool) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as opened:
            found, picture = opened.mode, opened.convert(mode)
    except Exception as error:  # a damaged file raises a dozen kinds
        raise ValueError(f"cannot read the image {name}: {error}") from error
    # Pillow would saturate them: all white.
    if found[0] in "IF":
        raise ValueError(f"{name} has more than 8 bits a channel; convert it to 8 bits first")
    if mode == "L" and found not in ("L", "1", "LA") and not resize:
        raise ValueError(
            f"{name} has channels {found}; the model takes 1 (grey); pass --resize to convert it"
        )
    return picture


def _crop_and_scale(picture: Image.Image, height: int, width: int) -> Image.Image:
    scale = min(picture.width / width, picture.height / height)
    crop_w, crop_h = width * scale, height * scale
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _read_array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            if path.suffix == ".npy":
                return np.load(file, allow_pickle=False)
            if path.suffix == ".npz":
                archive = np.load(file, allow_pickle=False)
                return archive[archive.files[0]]
            content = file.read()
        return _read_idx(gzip.decompress(content) if path.suffix == ".gz" else content)
    except Exception as error:  # a damaged file raises a dozen kinds
        raise ValueError(f"cannot read {path} as IDX, .npy or .npz of images: {error}") from error


def _read_idx(content: bytes) -> np.ndarray:
    """IDX: two zero bytes, the type (8 = uint8), the rank, then big-endian sizes and the data."""
    if content[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of bytes")
    rank = content[3]
    sizes = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _fit_array(
    array: np.ndarray, path: Path, shape: tuple[int, int, int] | None
) -> UInt8[Tensor, "n c h w"]:
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(
            f"{path} holds an array {list(array.shape)} of {array.dtype}; "
            "uint8 [n, h, w] or [n, h, w, c] is needed"
        )
    images = array if array.ndim == 4 else array[..., None]
    pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
    if shape is not None and tuple(pixels.shape[1:]) != shape:
        got = "x".join(map(str, pixels.shape[1:]))
        raise ValueError(
            f"{path} holds images of {got}; the model takes {'x'.join(map(str, shape))}"
        )
    return pixels
