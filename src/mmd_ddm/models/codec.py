"""From latents to pixels: the frozen autoencoder of a latent diffusion model.

Its decoder keeps more for a backward pass than a network call does (5.7 GiB an image of 512 x 512
pixels in float32, of Stable Diffusion), so that it is computed again there.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Codec"]


class Codec(nn.Module):
    """``decode(z std / s + shift)``, with what the autoencoder's config says of each.

    It computes in the type of its weights, outside any autocast: SDXL's overflows in float16.

    Args:
        autoencoder: an ``AutoencoderKL``, ``VQModel``, ``AutoencoderDC`` or ``AutoencoderTiny`` of
            diffusers, which is frozen.
    """

    std: Tensor
    shift: Tensor

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        config = autoencoder.config
        scale = float(config.get("scaling_factor") or 1.0)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        shift = mean if mean and std else [config.get("shift_factor") or 0.0]
        stretch = [one / scale for one in (std if mean and std else [1.0])]
        self.register_buffer("std", torch.tensor(stretch)[:, None, None], persistent=False)
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)

    def forward(self, z: Float[Tensor, "n d hz wz"], keep: bool = False) -> Tensor:
        """Images [n, c, h, w], of which those of the data lie in [-1, 1].

        Args:
            z: latents.
            keep: all that the decoder computes, for the backward pass.
        """
        latents = z * self.std + self.shift
        latents = latents.to(self.dtype)
        with torch.autocast(z.device.type.replace("meta", "cpu"), enabled=False):
            if torch.is_grad_enabled() and z.requires_grad and not keep:
                images: Tensor = checkpoint(self._decode, latents, use_reentrant=False)
            else:
                images = self._decode(latents)
        return images.to(z.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return next(self.autoencoder.parameters()).dtype

    def images_of(self, latent: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the images of such latents."""
        config = self.autoencoder.config
        levels = config.get("block_out_channels") or config["encoder_block_out_channels"]
        factor = 2 ** (len(levels) - 1)
        channels = config.get("out_channels") or config["in_channels"]
        return channels, factor * latent[1], factor * latent[2]

    def _decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents).sample
