"""Weights of foreign encoders: where they lie, how they are read, what to do where they are not.

They are looked for, in this order, at the path that the person gives (``inception:PATH``), in the
folder ``$MMD_DDM_WEIGHTS``, in the library's own cache, and on the net. Files are safetensors, or
read with ``weights_only``: nothing is unpickled, and no code of a repository is run.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmd_ddm.models.find import shorten

__all__ = ["load_hub_model", "own_copy", "read_tensors", "torch_hub_file"]

_VARIABLE = "MMD_DDM_WEIGHTS"


def own_copy(name: str) -> Path | None:
    """The file or folder of that name in ``$MMD_DDM_WEIGHTS``, if there is one."""
    folder = os.environ.get(_VARIABLE)
    found = Path(folder, name) if folder else None
    return found if found and found.exists() else None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors or PyTorch file.

    Raises:
        ValueError: no such file, or no file of tensors alone.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip raise their own types
        raise ValueError(f"cannot read weights from {path}: {shorten(error)}") from error


def torch_hub_file(url: str, sha256: str, space: str) -> Path:
    """A file of weights, fetched unless it lies in ``$MMD_DDM_WEIGHTS`` or PyTorch's cache.

    Raises:
        ValueError: it is in neither and cannot be fetched, or is another file than it should be.
    """
    name = url.rpartition("/")[2]
    cached = Path(torch.hub.get_dir(), "checkpoints", name)
    path = own_copy(name) or cached
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
        except Exception as error:  # the transport raises a dozen kinds
            raise ValueError(
                f"{space} needs {name} (SHA-256 {sha256}), and {url} does not give it "
                f"({shorten(error)}): download it elsewhere and put it into ${_VARIABLE} or "
                f"{cached.parent}, or name it: {space}:PATH"
            ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is not the file that {space} needs: its SHA-256 is {found}, not {sha256}; "
            f"replace it, or use it on purpose as {space}:{path}"
        )
    return path


def load_hub_model(source: str, classes: dict[str, str], space: str) -> nn.Module:
    """A model of the transformers library, from a folder, ``$MMD_DDM_WEIGHTS`` or the hub.

    Args:
        source: a folder, or a hub id (owner/name).
        classes: the library's class for every type of model that this space can read.
        space: whose weights they are, for the error.

    Raises:
        ValueError: no library, no such model, a model of another type, or incomplete weights.
    """
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise ValueError(f"{space} needs transformers: pip install 'mmd-ddm[clip]'") from error
    logging.disable_progress_bar()
    place = str(own_copy(source) or source)
    try:
        kind = transformers.AutoConfig.from_pretrained(place).model_type
        if kind not in classes:
            raise ValueError(f"it is of type {kind}; known: {', '.join(classes)}")
        network, found = getattr(transformers, classes[kind]).from_pretrained(
            place, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # the library, its hub's client and the transport have their own
        raise ValueError(
            f"{space} cannot load {source}: {shorten(error)}; offline, put its config.json and "
            f"model.safetensors into the folder {source} of ${_VARIABLE}, or name a folder that "
            f"holds them: {space}:FOLDER"
        ) from error
    _refuse_missing(source, found)
    return network


def _refuse_missing(source: str, found: dict[str, Any]) -> None:
    missing = sorted(found["missing_keys"])
    if missing:  # the library would leave them at random
        raise ValueError(
            f"{source} lacks {len(missing)} of its encoder's weights, {missing[0]} the first"
        )
