"""The hash of a module's weights: names a model or a feature space in records and caches."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["code_sha256", "key_of", "weights_sha256"]


def weights_sha256(module: nn.Module, name: str = "") -> str:
    """SHA-256 of all weights and buffers with their names, after ``name``."""
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def key_of(*about: Any) -> str:
    """Thirty-two digits that name what these JSON values describe."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


@cache
def code_sha256() -> str:
    """Of the source of this package, and the release of torch: another may compute otherwise."""
    digest = hashlib.sha256(version("torch").encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
