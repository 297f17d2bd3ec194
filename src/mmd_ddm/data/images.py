"""Images from where people keep them, as one uint8 tensor, and their endless seeded order.

A *source* is one of

- a folder of images (png, jpg, jpeg, webp, bmp), searched in its sub-folders, in sorted order,
- a zip archive of such images (read without extracting); see `pictures` for what is skipped,
- a parquet table with a column of such images, or a folder of tables,
- an IDX file (MNIST's format), gzipped or not,
- an ``.npy`` or ``.npz`` file with an array [n, h, w] or [n, h, w, c] of uint8,
- the name of a bundled set: ``fashion-mnist`` or ``fashion-mnist-heldout``,
- the name of a public set, as ``cifar10`` or ``cifar10-heldout``: see `public`.
"""

import gzip
import hashlib
import io
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mmd_ddm.data.pictures import read_pictures
from mmd_ddm.data.public_sets import DATASETS, parse_request
from mmd_ddm.data.read_public import read_public
from mmd_ddm.maths.random import generator
from mmd_ddm.runs.progress import Progress

__all__ = ["BUNDLED", "ImageSet", "Split", "batch", "load_images", "say_skipped"]

_BUNDLED_DIR = Path(__file__).parents[1] / "bundled" / "fashion-mnist"
BUNDLED = {
    "fashion-mnist": _BUNDLED_DIR / "reference-images-idx3-ubyte.gz",
    "fashion-mnist-heldout": _BUNDLED_DIR / "heldout-images-idx3-ubyte.gz",
}


@dataclass(frozen=True)
class ImageSet:
    """Images of one size.

    Attributes:
        pixels: uint8, [n, c, h, w].
        source: where they came from, as the person named it.
        skipped: names of the files there that were taken for no images.
    """

    pixels: UInt8[Tensor, "n c h w"]
    source: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, n: int) -> "ImageSet":
        """At most n of them, chosen at random but always the same: sources are often sorted."""
        if n >= len(self):
            return self
        order = torch.randperm(len(self), generator=generator(0, 0, 0, "subset"))
        return ImageSet(self.pixels[order[:n]], self.source)

    def split(self, seed: int = 0, heldout: "ImageSet | None" = None) -> "Split":
        """Set images apart for evaluation, and a tenth of the rest to select checkpoints by.

        Args:
            seed: of what is set apart.
            heldout: for evaluation; by default a fifth of these.

        Raises:
            ValueError: too few images.
        """
        from mmd_ddm.data.split import split_images

        return split_images(self, heldout, seed=seed, select=True)

    @cached_property
    def sha256(self) -> str:
        """Of the pixels and their shape; what caches are keyed by."""
        digest = hashlib.sha256(str(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """The parts.

    Attributes:
        matched: the images to match.
        heldout: those that only evaluation sees.
        dropped: held-out images that were left out.
        selection: those that checkpoints are selected by, neither matched nor judged by; None if
            none are set apart.
    """

    matched: ImageSet
    heldout: ImageSet
    dropped: int
    selection: ImageSet | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """Of the pixels of every part, for the record of a run."""
        parts = {"data": self.matched, "heldout": self.heldout, "selection": self.selection}
        return {f"{name}_sha256": images.sha256 for name, images in parts.items() if images}


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
    request = parse_request(str(source))
    if request is not None:
        images = ImageSet(read_public(request, shape, resize), str(source))
        return images.subset(request.count or len(images))
    path = BUNDLED.get(str(source), Path(source))
    if not str(source) or not path.exists():
        raise ValueError(
            f"no data at {source or 'an empty name'}: give a folder or zip of images, an IDX, "
            f".npy, .npz or .parquet file, or one of {', '.join((*BUNDLED, *DATASETS))}"
        )
    if path.is_dir() or path.suffix.lower() in (".zip", ".parquet"):
        pixels, skipped = read_pictures(path, shape, resize)
    else:
        pixels, skipped = _fit_array(_read_array(path), path, shape), ()
    if len(pixels) == 0:
        raise ValueError(f"{source} holds no images")
    return ImageSet(pixels, str(source), skipped)


def say_skipped(progress: Progress, *sources: ImageSet) -> None:
    """Name the files that were taken for no images."""
    for source in sources:
        if source.skipped:
            names = ", ".join(source.skipped[:5]) + ", ..." * (len(source.skipped) > 5)
            progress.say(f"skipped {len(source.skipped):,} files of {source.source}: {names}")


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


def _read_array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            if path.suffix == ".npy":
                return np.load(file, allow_pickle=False)
            if path.suffix == ".npz":
                archive = np.load(file, allow_pickle=False)
                return archive[archive.files[0]]
            return _read_idx(gzip.open(file) if path.suffix == ".gz" else file)
    except Exception as error:  # a damaged file raises a dozen kinds
        raise ValueError(f"cannot read {path} as IDX, .npy or .npz of images: {error}") from error


def _read_idx(file: io.BufferedIOBase) -> np.ndarray:
    """IDX: two zero bytes, the type (8 = uint8), the rank, then big-endian sizes and the data.

    No more is unpacked than the sizes announce, whatever a compressed file would unpack to.
    """
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of bytes")
    sizes = np.frombuffer(file.read(4 * head[3]), ">u4", head[3]).tolist()
    return np.frombuffer(file.read(math.prod(sizes) + 1), np.uint8).reshape(sizes)


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
