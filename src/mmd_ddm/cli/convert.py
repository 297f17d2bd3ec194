"""``mmd-ddm convert``: a checkpoint of the first codebases as a diffusers folder."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import console
from mmd_ddm.cli.options import Text, opt

__all__ = ["convert"]


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="Of pytorch_diffusion, ddim, improved-diffusion.")
    ],
    out: Annotated[Path, opt("Folder for the model; must not exist.")],
    image_size: Annotated[int | None, opt("Pixels a side; default: attention at 16")] = None,
    heads: Annotated[int | None, opt("improved-diffusion: --num_heads; default 4")] = None,
    noise_schedule: Annotated[Text, opt("improved-diffusion: linear or cosine (default)")] = None,
    diffusion_steps: Annotated[int | None, opt("improved-diffusion: T; default 4000")] = None,
) -> None:
    """Convert a PyTorch CHECKPOINT into a folder that every verb, and diffusers, loads.

    Takes those of pesser/pytorch_diffusion and ermongroup/ddim (CIFAR-10, CelebA, LSUN), and the
    unconditional ones of openai/improved-diffusion. A learned variance is left out.

    Example: mmd-ddm convert imagenet64_uncond_100M_1500K.pt --out imagenet64
    """
    from mmd_ddm.jobs.convert import convert as write

    denoiser = write(
        checkpoint, out, image_size=image_size, heads=heads, noise_schedule=noise_schedule,
        diffusion_steps=diffusion_steps,
    )  # fmt: skip
    channels, height, width = denoiser.shape
    millions = sum(p.numel() for p in denoiser.network.parameters()) / 1e6
    about = [f"images of {height}x{width} in {channels} channels", *denoiser.notes]
    console.print(f"saved {out}: {millions:.1f} M weights, {', '.join(about)}")
