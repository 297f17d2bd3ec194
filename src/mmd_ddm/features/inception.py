r"""Inception-V3 with the weights of FID: TensorFlow's network of 2015, as torch-fidelity ports it.

Images are scaled to 299 x 299 as TensorFlow 1 did (bilinear, corners not aligned, half a pixel
off), and x = (v - 128) / 128 of values v in 0 ... 255 goes in. ``inception`` is the pooled last
layer, d = 2048: FD there is FID. ``inception-spatial`` is the first 7 channels of the node
``mixed_6/conv`` (the 1 x 1 branch of Mixed_6d, after its ReLU), 17 x 17 x 7 = 2023 numbers: FD
there is sFID. Layers and resize are torch-fidelity's; its extractor itself takes uint8 only.

References:
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.
    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017 (FID).
    Nash et al., "Generating Images with Sparse Representations", 2021 (sFID).
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.features.base import FeatureExtractor, to_channels
from mmd_ddm.features.weights import read_tensors, torch_hub_file

__all__ = ["SHA256", "Inception", "SpatialInception", "layers_of_inception"]

_SIZE = 299
_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Inception(FeatureExtractor):
    """phi(x) = the 2048 pooled channels of the last layer.

    Args:
        path: of the weights, in torch-fidelity's names; the official file if none is given.

    Raises:
        ValueError: weights that cannot be had or read.
    """

    name = family = "inception"
    dim = 2048

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        from torch_fidelity.interpolate_compat_tensorflow import (
            interpolate_bilinear_2d_like_tensorflow1x,
        )

        self._resize = interpolate_bilinear_2d_like_tensorflow1x
        self.layers = layers_of_inception()
        path = path or torch_hub_file(_URL, SHA256, "inception")
        state = read_tensors(path)
        try:
            self.register_buffer("class_weights", state.pop("fc.weight"))
            state.pop("fc.bias")
            self.layers.load_state_dict(state)
        except (KeyError, RuntimeError) as error:
            lines = str(error).splitlines()
            raise ValueError(f"{path} holds no weights of Inception-V3: {lines[-1]}") from error

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, and run the network to its pooled features."""
        return nn.functional.adaptive_avg_pool2d(self.layers(self._scaled(images)), 1).flatten(1)

    def _scaled(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 299 299"]:
        values = (to_channels(images, 3) + 1) * 127.5
        return (self._resize(values, size=(_SIZE, _SIZE), align_corners=False) - 128) / 128


class SpatialInception(Inception):
    """phi(x) = the first 7 channels of ``mixed_6/conv`` at their 17 x 17 places."""

    name = "inception-spatial"
    dim = 17 * 17 * 7

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path)
        names = list(dict(self.layers.named_children()))
        mixed_6d: Any = self.layers.Mixed_6d
        del self.class_weights
        self.layers = self.layers[: names.index("Mixed_6d")].append(mixed_6d.branch1x1)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, and run the network up to that node."""
        return self.layers(self._scaled(images))[:, :7].flatten(1)


def layers_of_inception() -> nn.Sequential:
    """The network without its classifier, each layer under torch-fidelity's name."""
    from torch_fidelity import feature_extractor_inceptionv3 as source

    convolution = source.BasicConv2d
    layers = OrderedDict(
        Conv2d_1a_3x3=convolution(3, 32, kernel_size=3, stride=2),
        Conv2d_2a_3x3=convolution(32, 32, kernel_size=3),
        Conv2d_2b_3x3=convolution(32, 64, kernel_size=3, padding=1),
        MaxPool_1=nn.MaxPool2d(kernel_size=3, stride=2),
        Conv2d_3b_1x1=convolution(64, 80, kernel_size=1),
        Conv2d_4a_3x3=convolution(80, 192, kernel_size=3),
        MaxPool_2=nn.MaxPool2d(kernel_size=3, stride=2),
        Mixed_5b=source.InceptionA(192, pool_features=32),
        Mixed_5c=source.InceptionA(256, pool_features=64),
        Mixed_5d=source.InceptionA(288, pool_features=64),
        Mixed_6a=source.InceptionB(288),
        Mixed_6b=source.InceptionC(768, channels_7x7=128),
        Mixed_6c=source.InceptionC(768, channels_7x7=160),
        Mixed_6d=source.InceptionC(768, channels_7x7=160),
        Mixed_6e=source.InceptionC(768, channels_7x7=192),
        Mixed_7a=source.InceptionD(768),
        Mixed_7b=source.InceptionE_1(1280),
        Mixed_7c=source.InceptionE_2(2048),
    )
    return nn.Sequential(layers)
