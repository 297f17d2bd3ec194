r"""A pretrained denoiser's contracting half, frozen: a feature space every model brings along.

A clean image is noised a little, x_t = alpha_t x + sigma_t z with t = T/20 and one fixed z, so
that the network meets what it was trained on; its activations at every resolution, and in the
middle, are pooled as those of the multi-level encoder. To denoise well a network has to know
shapes and textures, and no labels or other data were needed to teach it.

``MODEL@50+200+500`` reads it at those times instead, each with the same z, and joins the vectors:
at little noise a denoiser looks at textures, at much noise at the whole.

References:
    Xiang et al., "Denoising Diffusion Autoencoders are Unified Self-supervised Learners", 2023.
    Sauer et al., "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
    Distillation", 2024 (generative features as the space to match).
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor, pool_levels, to_channels
from mmd_ddm.maths.schedules import betas_of
from mmd_ddm.models.find import find_model
from mmd_ddm.models.load import is_stock, load_denoiser
from mmd_ddm.models.protocol import Denoiser

__all__ = ["DenoiserFeatures", "contracting_half", "split_times"]


class DenoiserFeatures(FeatureExtractor):
    """phi(x) = the pooled activations of the model's contracting half.

    Args:
        choice: a bundled model, a run, a diffusers folder, a hub id; never the network that is
            being finetuned, but the weights as they lie there. ``@`` and noise times between 0 and
            T behind it, joined by ``+``, say when it is read; T/20 where there are none.

    Raises:
        ValueError: nothing of that name, no diffusion model, or no such time.
    """

    name = "denoiser"
    z: Tensor

    def __init__(self, choice: str) -> None:
        super().__init__()
        model, times = split_times(choice)
        source = find_model(model)
        if is_stock(source):
            raise ValueError(
                f"the network of {model} sees latents, not images: name another space than "
                "denoiser, as --features dinov2"
            )
        self.denoiser = load_denoiser(source)
        network: Any = self.denoiser.network
        betas_of(self.denoiser.schedule, "the denoiser space")
        if network.mid_block is None or any(hasattr(b, "skip_conv") for b in network.down_blocks):
            raise ValueError(f"{model} has another layout than the denoiser space can read")
        network.up_blocks = network.conv_norm_out = network.conv_out = None  # not read
        T = len(self.denoiser.schedule)
        self.times = times or (float(T // 20),)
        for t in self.times:
            if not 0 <= t < T:
                raise ValueError(f"{model} has no noise time {t:g}: choose from 0 to {T - 1}")
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("z", torch.randn((1, *self.denoiser.shape), generator=draw))
        widths = network.config.block_out_channels
        self.dim = 5 * (sum(widths) + widths[-1]) * len(self.times)

    def weights(self) -> Iterable[Tensor]:
        """The network's; every model of images of one size has the same z."""
        return self.denoiser.network.state_dict().values()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """At each time add noise, run the contracting half, pool."""
        x, levels = to_channels(images, self.denoiser.shape[0]), []
        for t in self.times:
            alpha_t, sigma_t = self.denoiser.schedule(t)
            levels += contracting_half(self.denoiser, alpha_t * x + sigma_t * self.z, t)
        return pool_levels(levels)


def split_times(choice: str) -> tuple[str, tuple[float, ...]]:
    """``MODEL@50+200`` as the model and the times; none where it names none."""
    found = re.fullmatch(r"(.+)@([0-9.]+(?:\+[0-9.]+)*)", choice)
    if not found:
        return choice, ()
    try:
        return found[1], tuple(float(t) for t in found[2].split("+"))
    except ValueError as error:
        raise ValueError(f"times are numbers joined by +, as @50+200; got @{found[2]}") from error


def contracting_half(
    denoiser: Denoiser, x_t: Float[Tensor, "n c h w"], t: float
) -> list[Float[Tensor, "n _ _ _"]]:
    """Activations of a `UNet2DModel`'s contracting half, one a resolution, and its middle's.

    It is told no class: by the label that means none, or, where there is none, by no label.

    Args:
        denoiser: whose network is one.
        x_t: noisy images.
        t: one time for all.
    """
    network: Any = denoiser.network
    times = torch.full((len(x_t),), t, dtype=x_t.dtype, device=x_t.device)
    with denoiser.precision():
        temb = network.time_embedding(network.time_proj(times).to(x_t.dtype))
        if denoiser.null_label is not None:
            temb = temb + network.class_embedding(denoiser.no_class(len(x_t)).labels)
        hidden = network.conv_in(2 * x_t - 1 if network.config.center_input_sample else x_t)
        levels = []
        for block in network.down_blocks:
            hidden, residuals = block(hidden_states=hidden, temb=temb)
            levels.append(residuals[0].to(x_t.dtype))
        levels.append(network.mid_block(hidden, temb).to(x_t.dtype))
    return levels
