r"""A small convolutional network read at every stage, for images of 28 to 32 pixels.

Each of three stages contributes, for every channel, its mean over a 2 x 2 grid and its root mean
square over the image: layout, and texture with contrast. The dimensions of a trained one are then
standardised, so that no stage drowns another. Reading several levels is harder to satisfy by a
change nobody can see than a single penultimate layer.

Three spaces come from it: the *encoder* that ships with the package (trained to classify
Fashion-MNIST), one with weights of one's own (``encoder:PATH``), and a *random* one, which needs
no weights.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from mmd_ddm.features.base import FeatureExtractor, pool_levels, to_channels

__all__ = ["BUNDLED_ENCODER", "MultiLevel", "load_encoder", "random_encoder"]

BUNDLED_ENCODER = Path(__file__).parents[1] / "bundled" / "encoder.safetensors"
_WIDTHS = (32, 64, 128)


class MultiLevel(FeatureExtractor):
    """The network and its reading.

    Args:
        channels: of the images it takes, 1 or 3.
        widths: channels of the stages; the image halves between them.
    """

    name = "encoder"
    mean: Tensor
    std: Tensor

    def __init__(self, channels: int = 1, widths: tuple[int, ...] = _WIDTHS) -> None:
        super().__init__()
        self.channels = channels
        self.stages = nn.ModuleList()
        before = channels
        for i, width in enumerate(widths):
            self.stages.append(_stage(before, width, stride=1 if i == 0 else 2))
            before = width
        self.dim = 5 * sum(widths)
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("std", torch.ones(self.dim))

    def levels(self, images: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """The activations after each stage."""
        x = to_channels(images, self.channels)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Pool every level and standardise."""
        return (pool_levels(self.levels(images)) - self.mean) / self.std


def _stage(before: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
    )


def load_encoder(path: Path = BUNDLED_ENCODER) -> MultiLevel:
    """A trained encoder from safetensors; channels and widths are read off the weights.

    Raises:
        ValueError: the file is missing or is no such encoder.
    """
    try:
        state = load_file(path)
        convolutions = [v for k, v in state.items() if k.endswith(".0.weight")]
        phi = MultiLevel(convolutions[0].shape[1], tuple(len(v) for v in convolutions))
        phi.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except Exception as error:  # safetensors raises its own type, torch a RuntimeError
        raise ValueError(f"cannot read an encoder from {path}: {error}") from error
    return phi


def random_encoder(channels: int, seed: int = 0) -> MultiLevel:
    """The same network with random weights; another seed is another space."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        phi = MultiLevel(channels)
    phi.name = "random"
    return phi
