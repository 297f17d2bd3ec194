"""What names a computation: the hash of weights, of sources, of settings.

A record that holds such a name, or a cache that is keyed by it, can never be taken for another's.
"""

import hashlib
import inspect
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["code_sha256", "key_of", "source_sha256", "weights_sha256"]

# What computes the numbers; the other wings only ask for them.
_NUMERIC = ("maths", "models", "samplers", "features", "evaluation")


def weights_sha256(module: nn.Module, name: str = "") -> str:
    """SHA-256 of all weights and buffers with their names, after ``name``."""
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def source_sha256(kind: type) -> str:
    """Of the file that defines a class; of ours, which `code_sha256` covers, nothing."""
    if kind.__module__.startswith(f"{__package__.partition('.')[0]}."):
        return ""
    try:
        return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # of a notebook, where nothing but its name is known
        return kind.__qualname__


def key_of(*about: Any) -> str:
    """Thirty-two digits that name what these JSON values describe."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def code_sha256() -> str:
    """SHA-256 of the numeric sources, and of the releases of torch and diffusers.

    Another may compute otherwise.
    """
    digest = hashlib.sha256(f"{version('torch')}/{version('diffusers')}".encode())
    package = Path(__file__).parents[1]
    for wing in _NUMERIC:
        for path in sorted((package / wing).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
