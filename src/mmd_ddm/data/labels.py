"""Which class each image is of, from where people keep it.

- Pictures in folders, or in a zip: the first folder below the one that holds them all (or below
  that of their split), numbered in sorted order, as torchvision's ``ImageFolder`` does.
- The same with a ``dataset.json`` of EDM: ``{"labels": [["00000/img0.png", 6], ...]}``.
- An ``.npz``: the array ``labels``, ``label`` or ``y``; ``y_train`` beside ``x_train``, and
  ``arr_1`` beside ``arr_0``, as in the sample files of guided-diffusion.
- IDX: the twin file, ``train-labels-idx1-ubyte`` beside ``train-images-idx3-ubyte``.

An image without a label is refused: a set with holes is another set.
"""

import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mmd_ddm.data.choose import without_split
from mmd_ddm.data.decode import Refused
from mmd_ddm.data.notes import listed

__all__ = ["Labels", "labels_array", "labels_of_pictures", "numbered", "twin_of"]

_LIST = "dataset.json"
_WAYS = (
    "put each picture into the folder of its class, or give an .npz with an array labels, or an "
    "IDX file with its labels-idx1-ubyte beside it"
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
    by_name = _read_list(path)
    if by_name is not None:
        _refuse_unlabelled(path, [name for name in names if name not in by_name], len(names))
        return numbered(np.array([by_name[name] for name in names]), str(path), len(names))
    inner = [PurePosixPath(*without_split(PurePosixPath(name).parts)).parent for name in names]
    top = os.path.commonpath(inner) if inner else ""
    folders = [one.relative_to(top).parts for one in inner]
    lacking = [name for name, folder in zip(names, folders, strict=True) if not folder]
    _refuse_unlabelled(path, lacking, len(names))
    classes = sorted({folder[0] for folder in folders})
    number = {name: i for i, name in enumerate(classes)}
    return Labels(torch.tensor([number[folder[0]] for folder in folders]), tuple(classes))


def _refuse_unlabelled(path: Path, lacking: Sequence[str], n: int) -> None:
    if len(lacking) == n:
        raise ValueError(f"{path} holds no labels: {_WAYS}")
    if lacking:
        raise ValueError(
            f"{len(lacking):,} of the {n:,} pictures of {path} have no label "
            f"({listed(lacking, 5)}): {_WAYS}"
        )


def _read_list(path: Path) -> dict[str, Any] | None:
    """The class of each picture by EDM's list, if there is one with labels."""
    try:
        if path.is_dir():
            text = (path / _LIST).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(_LIST)
    except (OSError, KeyError):
        return None
    try:
        found = json.loads(text)["labels"]
        return None if found is None else {str(name): label for name, label in found}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{_LIST} of {path} cannot be read: "
            '{"labels": [["00000/img0.png", 6], ...]} is needed'
        ) from error


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
    usual = [name for name in (beside, "labels", "label", "y") if name != images]
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
        beside = f"no {twin.name} lies beside it" if twin != path else _WAYS
        raise ValueError(f"{path} holds no labels: {beside}")
    return twin
