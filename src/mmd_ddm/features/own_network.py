r"""A pretrained denoiser's contracting half, frozen: a feature space every model brings along.

A clean image is noised a little, x_t = alpha_t x + sigma_t z with t = T/20 and one fixed z, so
that the network meets what it was trained on; its activations at every resolution, and in the
middle, are pooled as those of the multi-level encoder. To denoise well a network has to know
shapes and textures, and no labels or other data were needed to teach it.

References:
    Xiang et al., "Denoising Diffusion Autoencoders are Unified Self-supervised Learners", 2023.
    Sauer et al., "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
    Distillation", 2024 (generative features as the space to match).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor, pool_levels, to_channels
from mmd_ddm.models.denoiser import Denoiser
from mmd_ddm.models.find import find_model

__all__ = ["DenoiserFeatures"]


class DenoiserFeatures(FeatureExtractor):
    """phi(x) = the pooled activations of the model's contracting half.

    Args:
        model: a bundled model, a run, a diffusers folder, a hub id; never the network that is
            being finetuned, but the weights as they lie there.

    Raises:
        ValueError: nothing of that name, or no diffusion model.
    """

    name = "denoiser"
    z: Tensor

    def __init__(self, model: str) -> None:
        super().__init__()
        self.denoiser = Denoiser.from_pretrained(find_model(model))
        network: Any = self.denoiser.network
        if network.mid_block is None or any(hasattr(b, "skip_conv") for b in network.down_blocks):
            raise ValueError(f"{model} has another layout than the denoiser space can read")
        network.up_blocks = network.conv_norm_out = network.conv_out = None  # not read
        self.t = float(len(self.denoiser.schedule) // 20)
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("z", torch.randn((1, *self.denoiser.shape), generator=draw))
        widths = network.config.block_out_channels
        self.dim = 5 * (sum(widths) + widths[-1])

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Noise a little, run the contracting half, pool."""
        alpha_t, sigma_t = self.denoiser.schedule(self.t)
        x_t = alpha_t * to_channels(images, self.denoiser.shape[0]) + sigma_t * self.z
        return pool_levels(self.denoiser.encode(x_t, self.t))
