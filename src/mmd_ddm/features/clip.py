r"""The image side of CLIP and SigLIP, of any size: their embedding, not normalised.

Images are scaled to the encoder's size (bicubic, antialiased, centre crop), brought to [0, 1] and
normalised by the encoder's mean and deviation. FD in ``clip``, ViT-B/32 with d = 512, is FID_CLIP;
CMMD is defined in ``clip:openai/clip-vit-large-patch14-336``.

References:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023.
    Kynkäänniemi et al., "The Role of ImageNet Classes in Fréchet Inception Distance", 2023.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor, normalised
from mmd_ddm.features.weights import load_hub_model

__all__ = ["CLIP_VIT_B_32", "Clip"]

CLIP_VIT_B_32 = "openai/clip-vit-base-patch32"
_CLASSES = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Clip(FeatureExtractor):
    """phi(x) = the embedding of the image.

    Args:
        source: a folder or hub id of a CLIP or SigLIP model in the form of transformers.

    Raises:
        ValueError: a model that cannot be had or read.
    """

    name = "clip"

    def __init__(self, source: str = CLIP_VIT_B_32) -> None:
        super().__init__()
        self.network = load_hub_model(source, _CLASSES, "clip")
        config: Any = self.network.config
        self.size = config.image_size
        self.of_siglip = config.model_type.startswith("siglip")
        self.dim = config.hidden_size if self.of_siglip else config.projection_dim

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, normalise, embed."""
        if self.of_siglip:
            half = (0.5, 0.5, 0.5)
            return self.network(normalised(images, self.size, half, half)).pooler_output
        return self.network(normalised(images, self.size, _CLIP_MEAN, _CLIP_STD)).image_embeds
