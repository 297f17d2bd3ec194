"""What every feature extractor is: a differentiable map phi from images to vectors."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.maths.pixels import from_uint8, to_uint8
from mmd_ddm.runs.fingerprint import settings_of, source_sha256, weights_sha256

__all__ = ["FeatureExtractor", "Rounded", "normalised", "pool_levels", "to_channels"]

# Of the settings of a space: its name and code are told beside them.
_NO_SETTINGS = {"name", "dim", "_made_with", "weight_digests", "class_weights"}
_SIZEABLE = 1000  # values of a tensor that no two networks have in common by chance


class FeatureExtractor(nn.Module, ABC):
    """phi: float images in [-1, 1], [n, c, h, w], to vectors, [n, d].

    Its weights are frozen and it is always in evaluation mode; the gradient flows to the images.

    Attributes:
        name: as in the registry.
        dim: d; 0 if it is known only once an image was seen.
        family: the one network that it reads, whatever file holds the weights; empty where the
            weights decide.
        class_weights: [k, d], of a classifier of the vectors; only spaces with classes have them.
    """

    name: str
    dim: int = 0
    family: str = ""
    class_weights: Tensor

    @abstractmethod
    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Map images to vectors."""

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Scores of the classes, without their bias: what the inception score is made of."""
        return features @ self.class_weights.to(features).T

    def freeze(self) -> None:
        """Weights take no gradient, batch statistics stay as they are."""
        self.eval().requires_grad_(False)
        _ = self._made_with  # before it is called, which may count or keep something

    @property
    def sha256(self) -> str:
        """Of weights, settings of all layers, and code that is not ours; names the space."""
        about = json.dumps([self.name, self._made_with, source_sha256(type(self))], default=str)
        return weights_sha256(self, about)

    @cached_property
    def _made_with(self) -> Any:
        """What its vectors depend on besides weights, as JSON values."""
        return settings_of(self, _NO_SETTINGS)

    def weights(self) -> Iterable[Tensor]:
        """What was learned, of which other spaces of the same network hold some."""
        return self.state_dict().values()

    @cached_property
    def weight_digests(self) -> frozenset[bytes]:
        """Of every sizeable weight tensor, rounded to either half precision as a copy may be."""
        return frozenset(
            hashlib.sha256(
                tensor.to("cpu", half).flatten().view(torch.uint8).numpy().data
            ).digest()
            for tensor in self.weights()
            if tensor.is_floating_point() and tensor.numel() >= _SIZEABLE
            if tensor.min() != tensor.max()
            for half in (torch.float16, torch.bfloat16)
        )


class Rounded(FeatureExtractor):
    """phi of the image as a file holds it: clamped and rounded to uint8.

    The gradient passes as if it were neither. Images that are uint8 already keep their vectors,
    so that this is the same space, with the same hash.

    Args:
        phi: the extractor.
    """

    def __init__(self, phi: FeatureExtractor) -> None:
        super().__init__()
        self.phi = phi
        self.name, self.dim, self.family = phi.name, phi.dim, phi.family

    @property
    def sha256(self) -> str:
        """That of ``phi``."""
        return self.phi.sha256

    def weights(self) -> Iterable[Tensor]:
        """Those of ``phi``."""
        return self.phi.weights()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Round, and apply phi."""
        rounded = from_uint8(to_uint8(images)).to(images)
        return self.phi(rounded + (images - images.detach()))


def normalised(
    images: Float[Tensor, "n c h w"], size: int, mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "n 3 s s"]:
    """What most networks of photographs take: square images of one size, normalised by colour.

    Args:
        images: in [-1, 1].
        size: of the result: the shorter side is scaled to it (bicubic, antialiased when
            shrinking), and the centre cut out.
        mean: of each colour, for values in [0, 1].
        std: likewise.
    """
    x = (to_channels(images, 3) + 1) / 2
    height, width = x.shape[2:]
    scale = size / min(height, width)
    scaled = (round(height * scale), round(width * scale))
    x = nn.functional.interpolate(x, size=scaled, mode="bicubic", antialias=True)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    x = x[:, :, top : top + size, left : left + size]
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]


def to_channels(images: Float[Tensor, "n c h w"], channels: int) -> Float[Tensor, "n k h w"]:
    """Repeat grey images to colour, or average colour to grey, if the encoder asks for it."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if channels == 1:
        return images.mean(1, keepdim=True)
    raise ValueError(f"cannot turn {images.shape[1]} channels into {channels}")


def pool_levels(levels: Sequence[Float[Tensor, "n _ _ _"]]) -> Float[Tensor, "n d"]:
    """Of every channel its mean over a 2 x 2 grid and its root mean square over the image."""
    pooled = []
    for level in levels:
        pooled.append(nn.functional.adaptive_avg_pool2d(level, 2).flatten(1))
        # The small constant keeps the gradient finite where a channel is silent.
        pooled.append((level.square().mean((2, 3)) + 1e-6).sqrt())
    return torch.cat(pooled, 1)
