"""The hash of a module's weights: names a model or a feature space in records and caches."""

import hashlib

from torch import nn

__all__ = ["weights_sha256"]


def weights_sha256(module: nn.Module, name: str = "") -> str:
    """SHA-256 of all weights and buffers with their names, after ``name``."""
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
