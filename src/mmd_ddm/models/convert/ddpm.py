"""The PyTorch layout of Ho et al., 2020: pesser/pytorch_diffusion and ermongroup/ddim."""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["SETTINGS", "matches", "rename"]

SETTINGS = {  # of UNet2DModel: those in which it differs from its own first source
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
_PLACES = {
    r"^temb\.dense\.0\.": "time_embedding.linear_1.",
    r"^temb\.dense\.1\.": "time_embedding.linear_2.",
    r"^mid\.block_1\.": "mid_block.resnets.0.",
    r"^mid\.block_2\.": "mid_block.resnets.1.",
    r"^mid\.attn_1\.": "mid_block.attentions.0.",
    r"^(down|up)\.(\d+)\.block\.": r"\1_blocks.\2.resnets.",
    r"^(down|up)\.(\d+)\.attn\.": r"\1_blocks.\2.attentions.",
    r"^(down|up)\.(\d+)\.(down|up)sample\.": r"\1_blocks.\2.\3samplers.0.",
    r"^norm_out\.": "conv_norm_out.",
    r"\.temb_proj\.": ".time_emb_proj.",
    r"\.nin_shortcut\.": ".conv_shortcut.",
    r"(\.attentions\.\d+)\.norm\.": r"\1.group_norm.",
    r"(\.attentions\.\d+)\.([qkv])\.": r"\1.to_\2.",
    r"(\.attentions\.\d+)\.proj_out\.": r"\1.to_out.0.",
}


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of this layout."""
    return "temb.dense.0.weight" in state and "conv_in.weight" in state


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of `UNet2DModel`, which counts levels as they are run."""
    levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("up."))
    return {
        _reverse(_name(key), levels): (
            # Attention's maps are 1 x 1 convolutions here, matrices there.
            value.squeeze(-1).squeeze(-1) if ".attn" in key else value
        ).float()
        for key, value in state.items()
    }


def _name(key: str) -> str:
    for pattern, place in _PLACES.items():
        key = re.sub(pattern, place, key)
    return key


def _reverse(key: str, levels: int) -> str:
    return re.sub(
        r"^up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", key
    )
