"""Layouts that are known by their names alone, to say what a checkpoint is."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["name_layout"]

# By the modules that some weights are of, all of each line.
_LAYOUTS = {
    ("first_stage_model.",): "the layout of a latent diffusion model",
    ("label_emb.", "input_blocks."): "the layout of a class-conditional guided-diffusion (ADM)",
    (
        "input_blocks.",
        "middle_block.",
    ): "the layout of guided-diffusion (ADM) with resblock_updown",
    ("map_layer0.", "enc."): "the layout of EDM",
    ("init_conv.", "downs."): "the layout of lucidrains/denoising-diffusion-pytorch",
    ("conv_in.", "time_embedding."): (
        "diffusers' own layout (name it diffusion_pytorch_model.bin, beside its config.json, and "
        "give that folder)"
    ),
}


def name_layout(state: Mapping[str, Tensor]) -> str:
    """In words; by its first weight if nobody knows it."""
    for modules, name in _LAYOUTS.items():
        if all(any(f".{module}" in f".{key}" for key in state) for module in modules):
            return name
    return f"an unknown layout (its first weight is {next(iter(state))!r})"
