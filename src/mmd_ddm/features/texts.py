r"""The text side of CLIP and SigLIP: how alike captions are. Frozen, normalised, no gradient.

References:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.clip import CLIP_VIT_B_32
from mmd_ddm.features.weights import load_hub_model, own_copy
from mmd_ddm.runs.fingerprint import code_sha256, key_of, weights_sha256
from mmd_ddm.runs.store import remembered_file

__all__ = ["embed_texts"]

_CLASSES = {
    "clip": "CLIPTextModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip": "SiglipTextModel",
    "siglip_text_model": "SiglipTextModel",
}


@torch.no_grad()
def embed_texts(
    texts: Sequence[str],
    encoder: str = "clip",
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
) -> Float[Tensor, "n d"]:
    """Embeddings of unit length, mapped from the cache; computed once.

    Args:
        texts: what is longer than the encoder reads is cut.
        encoder: ``clip`` (ViT-B/32), or ``clip:MODEL``, a folder or hub id of a CLIP or SigLIP
            model in the form of transformers.
        device: where to compute.
        batch_size: texts at once.

    Raises:
        ValueError: another name, or an encoder that cannot be had or read.
    """
    named = re.fullmatch("clip(?::(.+))?", encoder)
    if named is None:
        raise ValueError(f"unknown text encoder {encoder!r}; clip or clip:MODEL is needed")
    source = named[1] or CLIP_VIT_B_32
    network: Any = load_hub_model(source, _CLASSES, "clip").to(device)
    from transformers import AutoTokenizer

    split = AutoTokenizer.from_pretrained(str(own_copy(source) or source))
    longest = getattr(network.config, "text_config", network.config).max_position_embeddings
    tokens = split([*texts], padding="max_length", truncation=True, max_length=longest)
    rows = torch.tensor(tokens["input_ids"])

    def compute() -> np.ndarray:
        found = []
        for some in rows.split(batch_size):
            out = network(some.to(device))
            vectors = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
            found.append(torch.nn.functional.normalize(vectors.float(), dim=1).cpu())
        return torch.cat(found).numpy()

    def read(path: Path) -> Tensor:
        # Copy-on-write, so that torch may treat the array as writable.
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    config = network.config.to_diff_dict()
    about = [weights_sha256(network), config, rows.tolist(), torch.device(device).type]
    name = f"texts-{key_of(code_sha256(), about)}.npy"
    return remembered_file("features", name, compute, np.save, read, together=True)
