"""The layout of openai/improved-diffusion (Nichol & Dhariwal, 2021), unconditional networks."""

import re
from collections.abc import Mapping
from itertools import count

from torch import Tensor

__all__ = ["SETTINGS", "matches", "rename"]

SETTINGS = {"attn_norm_num_groups": 32}  # of UNet2DModel; its defaults are those of this source
_FIXED = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_PARTS = {  # of residual blocks, and of attentions
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
}


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of this layout, without classes.

    Those of guided-diffusion have it too, unless residual blocks scale its images down and up.
    """
    known = "input_blocks.0.0.weight" in state and "middle_block.0.in_layers.0.weight" in state
    scaling = any(re.match(r"output_blocks\.\d+\.[12]\.in_layers", key) for key in state)
    return known and not scaling and "label_emb.weight" not in state


def rename(state: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """The same weights under the names of `UNet2DModel`.

    Queries, keys and values lie in one matrix, head by head: [heads, 3, width, channels].
    """
    places = _places(state)
    renamed = {}
    for key, value in state.items():
        place = max((p for p in places if key.startswith(f"{p}.")), key=len, default="")
        module, _, kind = key.removeprefix(f"{place}.").rpartition(".")
        where = places.get(place, place)
        if module == "qkv":
            if heads < 1 or len(value) % (3 * heads):
                raise ValueError(f"--heads {heads} does not divide {len(value) // 3}, a width")
            parts = value.float().reshape(heads, 3, -1, *value.shape[1:2])
            for part, name in zip(parts.unbind(1), "qkv", strict=True):
                renamed[f"{where}.to_{name}.{kind}"] = part.flatten(0, 1)
            continue
        tensor = value.squeeze(-1) if module == "proj_out" else value
        inner = f"{_PARTS.get(module, module)}." if module else ""
        renamed[f"{where}.{inner}{kind}"] = tensor.float()
    return renamed


def _places(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Where each block goes: they are one list here, and levels with layers there."""
    places, level, layer = dict(_FIXED), 0, 0
    for n in range(1, _length(state, "input_blocks")):
        block = f"input_blocks.{n}"
        if f"{block}.0.op.weight" in state:
            places[f"{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, layer = level + 1, 0
        else:
            places[f"{block}.0"] = f"down_blocks.{level}.resnets.{layer}"
            places[f"{block}.1"] = f"down_blocks.{level}.attentions.{layer}"
            layer += 1
    for n in range(_length(state, "output_blocks")):
        block, (level, i) = f"output_blocks.{n}", divmod(n, layer + 1)
        places[f"{block}.0"] = f"up_blocks.{level}.resnets.{i}"
        places[f"{block}.1"] = f"up_blocks.{level}.attentions.{i}"
        for last in (1, 2):  # behind the attention, if there is one
            places[f"{block}.{last}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return places


def _length(state: Mapping[str, Tensor], blocks: str) -> int:
    return next(n for n in count() if not any(key.startswith(f"{blocks}.{n}.") for key in state))
