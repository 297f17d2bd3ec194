r"""DINOv2: the class token of a vision transformer that was trained without labels.

Images are scaled to 224 x 224 (bicubic, antialiased, centre crop) and normalised by ImageNet's
mean and deviation. FD in ``dinov2``, ViT-L/14 with d = 1024, is FD-DINOv2.

References:
    Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023.
    Stein et al., "Exposing flaws of generative model evaluation metrics", 2023 (FD-DINOv2).
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor, normalised
from mmd_ddm.features.weights import load_hub_model

__all__ = ["DINOV2_VIT_L_14", "Dinov2"]

DINOV2_VIT_L_14 = "facebook/dinov2-large"
_CLASSES = {
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
_SIZE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Dinov2(FeatureExtractor):
    """phi(x) = the class token after the last layer norm.

    Args:
        source: a folder or hub id of a DINOv2 model in the form of transformers.

    Raises:
        ValueError: a model that cannot be had or read.
    """

    name = "dinov2"

    def __init__(self, source: str = DINOV2_VIT_L_14) -> None:
        super().__init__()
        self.network = load_hub_model(source, _CLASSES, "dinov2")
        config: Any = self.network.config
        self.dim = config.hidden_size

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, normalise, take the class token."""
        return self.network(normalised(images, _SIZE, _MEAN, _STD)).pooler_output
