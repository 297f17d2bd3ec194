"""Which weights of a network are finetuned: all, all but the convolutions, or low-rank additions.

``lora`` adds to each attention projection and convolution of the residual blocks a product of two
thin matrices, of which one begins at zero, and trains only these. Afterwards they are merged, so
that the model is an ordinary one, and they are kept in a file of their own.

References:
    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmd_ddm.models.parts import share_weights
from mmd_ddm.runs.files import atomic_folder

__all__ = ["adapt", "check_trained", "lora_layers", "merge", "usually_trained"]

# Of residual blocks, as LCM-LoRA has them; of attention, also where two streams have each its own.
_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj",
    "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
]  # fmt: skip
_LARGE = 200e6  # weights


def usually_trained(network: nn.Module) -> str:
    """What is trained where nothing is said: low-rank additions to a large network."""
    return "lora" if sum(p.numel() for p in network.parameters()) > _LARGE else "all"


def check_trained(trained: str) -> None:
    """Whether `adapt` can be asked for this; before anything slow.

    Raises:
        ValueError: another name, or peft is not installed.
    """
    if trained not in ("", "all", "no-convolutions", "lora"):
        raise ValueError(f"trained is all, no-convolutions or lora; got {trained!r}")
    if trained == "lora" and find_spec("peft") is None:
        raise ValueError("trained = lora needs peft: pip install 'mmd-ddm[lora]'")


def adapt(network: nn.Module, trained: str, rank: int = 8, seed: int = 0) -> Any:
    """Let these weights take a gradient, and no others.

    Args:
        network: changed in place; the function it computes is not.
        trained: ``all``, ``no-convolutions`` or ``lora``; empty for none.
        rank: of the additions.
        seed: of their first values.

    Returns:
        What `merge` takes: peft's wrapper of the network with ``lora``, None otherwise.

    Raises:
        ValueError: whatever `check_trained` refuses.
    """
    check_trained(trained)
    network.requires_grad_(bool(trained))
    if trained in ("", "all"):
        return None
    if trained == "no-convolutions":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.requires_grad_(False)
        return None
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(network, config)


def lora_layers(adapter: Any) -> dict[str, Tensor]:
    """The additions by the names of the network's layers, as diffusers saves them."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(adapter)
    return {k.removeprefix("base_model.model."): v.contiguous() for k, v in found.items()}


def merge(adapter: Any, folder: Path | None) -> None:
    """Merge the additions into the network that was given to `adapt`.

    Args:
        adapter: what `adapt` returned; None has nothing to merge.
        folder: where peft keeps them first, to be loaded onto the base model; None does not.
    """
    if adapter is None:
        return
    if folder is not None:
        with atomic_folder(folder) as temporary:
            adapter.save_pretrained(temporary)
            share_weights(temporary)
    adapter.merge_and_unload()
