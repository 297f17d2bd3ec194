"""Any ``torch.nn.Module`` of one's own, by the place it is imported from.

``package.module:Name`` names a module, or what makes one when it is called without arguments. It
sees images in [-1, 1], [n, c, h, w], and gives a vector an image. Its weights, the settings of its
layers, and the sources that are loaded from its folder name the space in caches; what else it
reads, they cannot know.
"""

import importlib
import sys
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.models.find import shorten
from mmd_ddm.runs.fingerprint import source_sha256

__all__ = ["Imported"]


class Imported(FeatureExtractor):
    """phi(x) = what the module makes of x, as one vector.

    Args:
        place: ``package.module:Name``.

    Raises:
        ValueError: nothing there, or no ``torch.nn.Module``.
    """

    def __init__(self, place: str) -> None:
        super().__init__()
        module, _, attribute = place.partition(":")
        importlib.invalidate_caches()  # a module may have been written just now
        try:
            found: Any = getattr(importlib.import_module(module), attribute)
            network = found if isinstance(found, nn.Module) else found()
        except Exception as error:  # whatever a person's own code raises
            raise ValueError(f"cannot import {place}: {shorten(error)}") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"{place} is a {type(network).__name__}, no torch.nn.Module")
        self.network = network
        self.name = f"import:{place}"
        self.sources = [source_sha256(one) for one in (type(network), sys.modules[module])]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Call the module.

        Raises:
            ValueError: it does not give one vector an image.
        """
        vectors = self.network(images)
        if not isinstance(vectors, Tensor) or vectors.shape[:1] != images.shape[:1]:
            raise ValueError(f"{self.name} does not give one vector an image")
        vectors = vectors.flatten(1)
        self.dim = vectors.shape[1]
        return vectors
