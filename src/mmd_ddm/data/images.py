"""Images from where people keep them, as one uint8 tensor, and their endless seeded order.

A *source* is one of

- a folder of pictures (png, jpg, webp, bmp, gif, tiff ...) or of tables, with its sub-folders, in
  sorted order,
- a zip archive of pictures (read without extracting); see `pictures` for what is skipped,
- a parquet table with a column of pictures,
- an IDX file (MNIST's format), gzipped or not,
- an ``.npy`` or ``.npz`` file with an array [n, h, w] or [n, h, w, c] of uint8,
- one of these and what is chosen of it: ``photos:test``, ``set.npz:x_train``; see `choose`,
- the name of a bundled set: ``fashion-mnist`` or ``fashion-mnist-heldout``,
- the name of a public set, as ``cifar10`` or ``cifar10-heldout``: see `public_sets`.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.arrays import fit_array, read_array
from mmd_ddm.data.choose import find_place
from mmd_ddm.data.labels import labels_of_pictures, numbered
from mmd_ddm.data.notes import Notes, listed
from mmd_ddm.data.pictures import read_pictures
from mmd_ddm.data.public_sets import DATASETS, parse_request
from mmd_ddm.data.read_public import read_public
from mmd_ddm.maths.random import generator
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.progress import Progress
from mmd_ddm.settings import from_mapping

__all__ = ["BUNDLED", "ImageSet", "Split", "batch", "load_images", "say_read"]

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
        told: lines that say what was read, and what was left out.
        labels: int64, [n], the class of each, if they were asked for.
        classes: the names of all classes, by their numbers.
    """

    pixels: UInt8[Tensor, "n c h w"]
    source: str
    skipped: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    labels: Int64[Tensor, " n"] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, n: int) -> "ImageSet":
        """At most n of them, chosen at random but always the same: sources are often sorted."""
        if n >= len(self):
            return self
        order = torch.randperm(len(self), generator=generator(0, 0, 0, "subset"))
        return self.take(order[:n])

    def take(self, rows: Tensor) -> "ImageSet":
        """Those of these rows, with all that belongs to each: indices, or a mask."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, pixels=self.pixels[rows], labels=labels)

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
        """Of the pixels and their shape, without labels; what caches are keyed by."""
        digest = hashlib.sha256(str(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        return digest.hexdigest()

    def hashes(self, name: str) -> dict[str, str]:
        """Of the pixels, and of the labels if there are any, for the record of a run."""
        found = {f"{name}_sha256": self.sha256}
        if self.labels is not None:
            found[f"{name}_labels_sha256"] = key_of(self.labels.tolist())
        return found


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
        """Of the pixels of every part, and of its labels, for the record of a run."""
        parts = {"data": self.matched, "heldout": self.heldout, "selection": self.selection}
        return {
            key: value
            for name, images in parts.items()
            if images
            for key, value in images.hashes(name).items()
        }


def load_images(
    source: str | Path,
    shape: tuple[int, int, int] | None = None,
    read: ReadConfig | None = None,
    *,
    labels: bool = False,
    **settings: Any,
) -> ImageSet:
    """Read all images of a source.

    Args:
        source: see the module's docstring.
        shape: (c, h, w) that every image must have. Without it, the first image decides the
            size and all are read in colour.
        read: what is done instead of refusing.
        labels: read which class each image is of as well: see `mmd_ddm.data.labels`.
        settings: ``read`` by name: ``resize=True, background="white", skip_damaged=True``.

    Raises:
        ValueError: nothing there, no image in it, images that are refused, several things of
            which none is chosen, or labels that are not there. The message names them.
    """
    read, name, notes = read or from_mapping(ReadConfig, settings), str(source), Notes()
    request = parse_request(name)
    if request is not None:
        if labels:
            raise ValueError(
                f"labels of {request.name} are not read by its name: give the folder of class "
                "folders, the zip, .npz or IDX file itself"
            )
        pixels, told = read_public(request, shape, read, notes)
        images = ImageSet(pixels, name, told=told)
        return images.subset(request.count or len(images))
    place = (BUNDLED[name], list[str]()) if name in BUNDLED else find_place(name)
    if place is None:
        raise ValueError(
            f"no data at {name or 'an empty name'}: give a folder or zip of images, an IDX, "
            f".npy, .npz or .parquet file, or one of {', '.join((*BUNDLED, *DATASETS))}"
        )
    path, asked = place
    if path.is_dir() or path.suffix.lower() in (".zip", ".parquet"):
        pixels, names = read_pictures(path, asked, shape, read, notes)
        found = labels_of_pictures(path, names) if labels else None
    else:
        array, of_images = read_array(path, asked, notes, labels=labels)
        pixels = fit_array(array, path, shape, read, notes)
        found = None if of_images is None else numbered(of_images, str(path), len(pixels))
    images = ImageSet(pixels, name, tuple(notes.skipped), notes.lines(name, len(pixels)))
    if found is None:
        return images
    said = f"{len(found.classes):,} classes of {name}: {listed(found.classes, 10)}"
    return replace(images, told=(*images.told, said), labels=found.numbers, classes=found.classes)


def say_read(progress: Progress, *sources: ImageSet) -> None:
    """What was read, and what was left out."""
    for source in sources:
        for line in source.told:
            progress.say(line)


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
