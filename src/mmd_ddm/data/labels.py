"""Which class each image is of, and its caption, from where people keep them.

- Pictures in folders, or in a zip: what lies beside them says (`mmd_ddm.data.beside`), or else, of
  labels, the first folder below the one that holds them all (or below that of their split),
  numbered in sorted order, as torchvision's ``ImageFolder`` does.
- Tables: a column.
- An ``.npz``: the array ``labels``, ``label`` or ``y``; ``y_train`` beside ``x_train``, and
  ``arr_1`` beside ``arr_0``, as in the sample files of guided-diffusion.
- IDX: the twin file, ``train-labels-idx1-ubyte`` beside ``train-images-idx3-ubyte``.

An image without a label, or without a caption, is refused: a set with holes is another set.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mmd_ddm.data.beside import column_beside, edm_labels, texts_beside
from mmd_ddm.data.choose import without_split
from mmd_ddm.data.decode import Refused
from mmd_ddm.data.notes import listed

__all__ = [
    "CAPTIONS", "LABELS", "Labels", "captioned", "captions_of_pictures", "labelled",
    "labels_array", "labels_of_pictures", "numbered", "twin_of",
]  # fmt: skip

LABELS = ("label", "labels", "class", "cls", "y")  # columns and arrays, in this order
CAPTIONS = ("text", "caption", "captions", "prompt", "txt")
_LABEL_WAYS = (
    "put each picture into the folder of its class, or give an .npz with an array labels, or an "
    "IDX file with its labels-idx1-ubyte beside it"
)
_CAPTION_WAYS = (
    "give a metadata.jsonl with file_name and text, a .txt beside each picture, or a table with a "
    "column text"
)


class Labels(NamedTuple):
    """The class of every image.

    Attributes:
        numbers: int64, [n], from 0.
        classes: the name of every class, in the order of their numbers.
    """

    numbers: Int64[Tensor, " n"]
    classes: tuple[str, ...]


def labels_of_pictures(path: Path, names: Sequence[str]) -> Labels:
    """Those of the pictures of a folder or zip archive.

    Args:
        path: the folder or archive.
        names: of the pictures, relative to it.

    Raises:
        ValueError: pictures without a label, how many and which.
    """
    values = column_beside(path, names, LABELS)
    if values is not None:  # of a .csv, numbers are text
        values = [int(v) if isinstance(v, str) and v.isdecimal() else v for v in values]
    if values is None and (by_name := edm_labels(path)) is not None:
        values = [by_name.get(name) for name in names]
    if values is None:
        parts = [PurePosixPath(*without_split(PurePosixPath(name).parts)).parent for name in names]
        top = os.path.commonpath(parts) if parts else ""
        folders = [one.relative_to(top).parts for one in parts]
        values = [folder[0] if folder else None for folder in folders]
    return labelled(values, (), str(path), names)


def captions_of_pictures(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The same of captions."""
    found = column_beside(path, names, CAPTIONS) or texts_beside(path, names)
    return captioned(found, str(path), names)


def labelled(
    values: Sequence[Any], classes: Sequence[str], source: str, names: Sequence[str]
) -> Labels:
    """Labels from what is said of each picture: whole numbers, or the names of classes.

    Args:
        values: of each; None, -1 or no name where there is none.
        classes: the names of all, if numbers have names; names are numbered in sorted order.
        source: for messages.
        names: of the pictures.

    Raises:
        ValueError: pictures without a label, how many and which; other values.
    """
    lacking = [name for v, name in zip(values, names, strict=True) if v in (None, -1, "")]
    _refuse(source, lacking, len(names), "label", _LABEL_WAYS)
    if classes or not any(isinstance(value, str) for value in values):
        found = numbered(np.array(values), source, len(names))
        return Labels(found.numbers, tuple(classes) or found.classes)
    texts = [str(value) for value in values]
    number = {name: i for i, name in enumerate(sorted({*texts}))}
    return Labels(torch.tensor([number[text] for text in texts]), tuple(number))


def captioned(values: Sequence[Any], source: str, names: Sequence[str]) -> tuple[str, ...]:
    """Captions from what is said of each picture.

    Raises:
        ValueError: pictures without a caption, how many and which.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    lacking = [name for text, name in zip(texts, names, strict=True) if not text]
    _refuse(source, lacking, len(names), "caption", _CAPTION_WAYS)
    return tuple(texts)


def _refuse(source: str, lacking: Sequence[str], n: int, what: str, ways: str) -> None:
    if lacking and len(lacking) == n:
        raise ValueError(f"{source} holds no {what}s: {ways}")
    if lacking:
        raise ValueError(
            f"{len(lacking):,} of the {n:,} pictures of {source} have no {what} "
            f"({listed(lacking, 5)}): {ways}"
        )


def numbered(array: np.ndarray, source: str, n: int) -> Labels:
    """Labels that are numbers, which are the classes' names.

    Args:
        array: a whole number each, from 0.
        source: for messages.
        n: of the images.

    Raises:
        ValueError: other values, or another number of them.
    """
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or flat.dtype.kind not in "iu" or (len(flat) and flat.min() < 0):
        raise ValueError(
            f"the labels of {source} are an array {list(array.shape)} of {array.dtype}; whole "
            "numbers [n] from 0 are needed"
        )
    if len(flat) != n:
        raise ValueError(f"{source} holds {len(flat):,} labels for its {n:,} images")
    numbers = torch.from_numpy(flat.astype(np.int64))
    return Labels(numbers, tuple(map(str, range(int(numbers.max()) + 1))))


def labels_array(names: Sequence[str], images: str) -> str:
    """Which array of an .npz holds the labels of that array of images.

    Raises:
        Refused: none of them does.
    """
    beside = {"arr_0": "arr_1"}.get(images, re.sub("^x", "y", images))
    usual = [name for name in (beside, *LABELS) if name != images]
    found = [name for name in usual if name in names]
    if not found:
        raise Refused(f"holds no labels: its arrays are {listed(names, 10)}; name one labels")
    return found[0]


def twin_of(path: Path) -> Path:
    """The file of labels beside an IDX file of images.

    Raises:
        ValueError: there is none.
    """
    twin = path.with_name(re.sub(r"images([-.])idx3", r"labels\1idx1", path.name))
    if twin == path or not twin.is_file():
        beside = f"no {twin.name} lies beside it" if twin != path else _LABEL_WAYS
        raise ValueError(f"{path} holds no labels: {beside}")
    return twin
