"""What it takes on a GPU to finetune a pipeline of latents, counted from its configs alone.

    bytes = held + trained + N image + m work

held are all weights; the rest is as `mmd_ddm.training.memory_plan` has it, of N images in a batch
and m at once, network calls and decoder computed again in the backward pass. Before, the prompts
are read, by the text encoders beside the network. Low-rank additions are merged at the end into a
network in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import nn

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_sampler, resolve_chains
from mmd_ddm.models.families.stock import Stock
from mmd_ddm.models.lora import adapt, usually_trained
from mmd_ddm.models.parts import quiet
from mmd_ddm.models.pipelines import skeleton
from mmd_ddm.models.valueless import Valueless, without_values
from mmd_ddm.training.memory_count import Counts, count, trained_bytes
from mmd_ddm.training.memory_plan import usable

__all__ = ["Sizes", "sizes_of"]

_GPUS = (24, 80)  # GiB
_GIB = 2**30


@dataclass(frozen=True)
class Way:
    """A way to finetune, and its bytes.

    Attributes:
        trained: of the weights.
        half: whether the network computes in bfloat16.
        blocks: whether they are recomputed one by one.
        counts: of one image.
        at_least: before the first image of a micro-batch.
        ends: while prompts are read, or additions merged.
    """

    trained: str
    half: bool
    blocks: bool
    counts: Counts
    at_least: int
    ends: int

    def memory(self, n: int) -> int:
        """With n images at once."""
        return max(self.at_least + n * self.counts.work, self.ends)

    def most(self, budget: int) -> int:
        """So many images at once take no more than that."""
        return max(0, (budget - self.at_least) // self.counts.work) if self.ends <= budget else 0


@dataclass(frozen=True)
class Sizes:
    """What can be said of a pipeline without its weights.

    Attributes:
        parts: the class and the number of weights of each, by what it is.
        ways: to finetune it.
        batch_size: images of an iteration.
        usual: what is trained where nothing is said.
    """

    parts: Mapping[str, tuple[str, int]]
    ways: tuple[Way, ...]
    batch_size: int
    usual: str

    words = 3  # of the columns, with which a line begins
    columns = (
        "trained", "in", "recomputed", "a call", "a decode", "one at once",
        *(f"in {gpu} GB" for gpu in _GPUS),
    )  # fmt: skip

    def lines(self) -> list[tuple[str, ...]]:
        """A line a way: GiB of a call, of a decode, of an iteration; images at once that fit."""
        return [
            (
                way.trained,
                "bfloat16" if way.half else "float32",
                "blocks" if way.blocks else "calls",
                *(f"{size / _GIB:.2f}" for size in (way.counts.call, way.counts.decode)),
                f"{way.memory(1) / _GIB:.1f} GiB",
                *(
                    f"{min(way.most(usable(gpu * _GIB)), self.batch_size) or 'no'}"
                    for gpu in _GPUS
                ),
            )
            for way in self.ways
        ]

    def __str__(self) -> str:
        each = [f"{what} {n:,} ({kind})" for what, (kind, n) in self.parts.items() if n]
        return f"weights: {', '.join(each)}; trained is {self.usual}, unless it is set"


def sizes_of(config: FinetuneConfig, model: str | Path) -> Sizes:
    """Count every way to finetune a pipeline of latents; its weights are not read.

    Args:
        config: the settings.
        model: a folder or hub id.
    """
    with quiet(), Valueless():
        pipeline = skeleton(model)
        plain = Stock(pipeline)
        plain.use_decoder(config.decoder)
        phis = [without_values(make_features(one, plain.shape[0])) for one in config.losses]
        texts = [v for k, v in pipeline.components.items() if k.startswith("text_encoder") and v]
        codecs = [plain.codec, *([plain.small] if plain.small else [])]
        autoencoder = codecs[-1].autoencoder
        found = {"network": [plain.network], "text": texts, "features": phis}
        parts = {
            what: (" + ".join(type(one).__name__ for one in ones), sum(map(_weights, ones)))
            for what, ones in found.items()
        }
        decoder = _weights(getattr(autoencoder, "decoder", autoencoder))
        parts["decoder"] = type(autoencoder).__name__, decoder
        beside = sum(map(_bytes, (*codecs, *phis)))
        reading = sum(map(_bytes, texts)) + _bytes(plain.codec)
        ways: list[Way] = []
        for trained, half in product(("lora", "all"), (True, False)):
            denoiser = without_values(plain)
            denoiser.autocast = torch.bfloat16 if half else None
            denoiser.hold(trained)
            if not half and denoiser.network.dtype != torch.float32:
                continue  # it lies in half precision
            adapt(denoiser.network, trained, config.lora_rank)
            held = _bytes(denoiser.network)
            least = held + beside + trained_bytes(denoiser)
            if trained == "all" and half:
                least += held // 2  # what autocast makes of the weights
                denoiser.network.to(torch.bfloat16)
            chain, budgets = resolve_chains(config, denoiser)
            sampler = build_sampler((budgets or (chain,))[-1], denoiser)
            merging = 4 * parts["network"][1] + beside if trained == "lora" else 0
            for blocks in (False, True):
                if blocks and not denoiser.recompute_blocks():
                    continue
                counts = count(sampler, phis, ways[0].counts if ways else None)
                base = least + config.batch_size * counts.image
                ways.append(Way(trained, half, blocks, counts, base, max(held + reading, merging)))
    return Sizes(parts, tuple(ways), config.batch_size, usually_trained(plain.network))


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())
