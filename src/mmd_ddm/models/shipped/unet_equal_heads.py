"""A diffusers UNet whose attentions have equally many heads, not heads of equal width.

`UNet2DModel` gives every attention ``channels // attention_head_dim`` heads. Some networks have
the same number at every width (improved-diffusion on ImageNet-64: 4 heads over 384 and over 512
channels), which no setting of it says. This file is copied into exported folders and depends on
diffusers alone:

    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
"""

from functools import wraps
from typing import Any

from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention

__all__ = ["EqualHeadsUNet2DModel"]


class EqualHeadsUNet2DModel(UNet2DModel):
    """`UNet2DModel` with ``block_out_channels[-1] // attention_head_dim`` heads everywhere."""

    @wraps(UNet2DModel.__init__)  # type: ignore[misc]
    def __init__(self, **settings: Any) -> None:
        # One head of all channels has matrices of the same shape, at every width.
        super().__init__(**{**settings, "attention_head_dim": None})
        self.register_to_config(attention_head_dim=settings["attention_head_dim"])
        heads = self.config.block_out_channels[-1] // self.config.attention_head_dim
        for module in self.modules():
            if isinstance(module, Attention):
                module.heads = module.sliceable_head_dim = heads
                module.scale = (module.inner_dim // heads) ** -0.5
