"""Images from where people keep them, and their endless seeded order.

A *source* is one of

- a folder of pictures (png, jpg, webp, bmp, gif, tiff ...) or of tables, with its sub-folders, in
  sorted order,
- a zip archive of pictures (read without extracting); see `pictures` for what is skipped,
- a parquet or Arrow table with a column of pictures (``save_to_disk``), or a WebDataset tar,
- a set of the Hugging Face hub, ``hub:OWNER/NAME``,
- an IDX file (MNIST's format), gzipped or not,
- an ``.npy`` or ``.npz`` file with an array [n, h, w] or [n, h, w, c] of uint8,
- one of these and what is chosen of it: ``photos:test``, ``set.npz:x_train``; see `choose`,
- the name of a bundled set: ``fashion-mnist`` or ``fashion-mnist-heldout``,
- the name of a public set, as ``cifar10`` or ``cifar10-heldout``: see `public_sets`.

Each is decoded once, to uint8 of the size that is asked for, into a file of the cache: `stored`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.locate import BUNDLED
from mmd_ddm.data.notes import listed, printable
from mmd_ddm.data.read import read_source
from mmd_ddm.data.stored import Stored
from mmd_ddm.data.tables import Wanted
from mmd_ddm.maths.random import generator
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.settings import from_mapping

__all__ = ["BUNDLED", "ImageSet", "Split", "batch", "load_images", "say_read"]

_BLOCK = 4096  # images read at once


@dataclass(frozen=True)
class ImageSet:
    """Images of one size.

    Attributes:
        store: uint8, [n, c, h, w]; or where they are read from, a few at a time.
        source: where they came from, as the person named it.
        skipped: names of the files there that were taken for no images.
        told: lines that say what was read, and what was left out.
        labels: int64, [n], the class of each, if they were asked for.
        classes: the names of all classes, by their numbers.
        captions: of each, if they were asked for.
    """

    store: UInt8[Tensor, "n c h w"] | Stored
    source: str
    skipped: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    labels: Int64[Tensor, " n"] | None = None
    classes: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, rows: Any) -> UInt8[Tensor, "..."]:
        """The pixels of these: an index, a slice, indices or a mask."""
        return self.store[rows]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of each."""
        channels, height, width = self.store.shape[1:]
        return channels, height, width

    @cached_property
    def pixels(self) -> UInt8[Tensor, "n c h w"]:
        """All of them, in memory."""
        return self.store[:]

    def blocks(self) -> Iterator[UInt8[Tensor, "k c h w"]]:
        """All of them, some at a time."""
        return (self[i : i + _BLOCK] for i in range(0, len(self), _BLOCK))

    def subset(self, n: int) -> "ImageSet":
        """At most n of them, chosen at random but always the same: sources are often sorted."""
        if n >= len(self):
            return self
        order = torch.randperm(len(self), generator=generator(0, 0, 0, "subset"))
        return self.take(order[:n])

    def take(self, rows: Tensor) -> "ImageSet":
        """Those of these rows, with all that belongs to each: indices, or a mask."""
        rows = torch.arange(len(self))[rows]
        return replace(
            self,
            store=self.store.take(rows) if isinstance(self.store, Stored) else self.store[rows],
            labels=None if self.labels is None else self.labels[rows],
            captions=tuple(self.captions[i] for i in rows.tolist()) if self.captions else (),
        )

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
        digest = hashlib.sha256(str(tuple(self.store.shape)).encode())
        for block in self.blocks():
            digest.update(block.contiguous().numpy().data)
        return digest.hexdigest()

    def hashes(self, name: str) -> dict[str, str]:
        """Of the pixels, and of what is said of them, for the record of a run."""
        found = {f"{name}_sha256": self.sha256}
        if self.labels is not None:
            found[f"{name}_labels_sha256"] = key_of(self.labels.tolist())
        if self.captions:
            found[f"{name}_captions_sha256"] = key_of(self.captions)
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
    captions: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> ImageSet:
    """The images of a source, decoded if they were not before.

    Args:
        source: see the module's docstring.
        shape: (c, h, w) that every image must have. Without it, the first image decides the
            size and all are read in colour.
        read: what is done instead of refusing.
        labels: read which class each image is of as well: see `mmd_ddm.data.labels`.
        captions: likewise.
        progress: told how far decoding is.
        settings: ``read`` by name: ``resize=True, background="white", skip_damaged=True``.

    Raises:
        ValueError: nothing there, no image in it, images that are refused, several things of
            which none is chosen, or labels or captions that are not there. The message names them.
    """
    read = read or from_mapping(ReadConfig, settings)
    found = read_source(str(source), shape, read, Wanted(labels, captions), progress)
    images = ImageSet(
        found.store, str(source), tuple(found.skipped), found.told, captions=found.captions
    )
    if found.labels is not None:
        numbers, classes = found.labels
        said = f"{len(classes):,} classes of {source}: {listed(classes, 10)}"
        images = replace(images, told=(*images.told, said), labels=numbers, classes=classes)
    if captions:
        different = len({*images.captions})
        said = f"{different:,} different captions of {source}, the first: {images.captions[0]}"
        images = replace(images, told=(*images.told, printable(said)))
    return images.subset(found.count)


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
