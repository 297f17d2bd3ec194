"""The one way to a row of results: draw a chain, judge what it drew, write down how.

Every number is of images rounded to uint8, each drawn from a seed of its own. What a chain draws
is remembered by all that decides it (`Sampler.fingerprint`), so that no row is drawn twice.

Over S seeds a score is the mean, with the standard error sd / sqrt(S); of one seed, a score keeps
the standard error it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics.registry import METRICS
from mmd_ddm.evaluation.scores import Score, without_errors
from mmd_ddm.evaluation.space import Space
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.progress import Update
from mmd_ddm.runs.store import remembered_arrays
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw

__all__ = [
    "SEED_STRIDE",
    "Entry",
    "drawn",
    "equal_quality_steps",
    "measure",
    "over_seeds",
    "protocol",
]

SEED_STRIDE = 1_000_000  # image i of seed s is drawn from s * SEED_STRIDE + i


@dataclass(frozen=True)
class Entry:
    """A chain of a network that becomes a row.

    Attributes:
        name: ``base`` or ``finetuned``.
        model: its name.
        chain: with its times.
        sampler: the same, ready to draw.
    """

    name: str
    model: str
    chain: ChainConfig
    sampler: Sampler


def measure(
    entry: Entry,
    spaces: Sequence[Space],
    n: int,
    seed: int,
    bar: Update,
    *,
    batch_size: int = 0,
) -> tuple[dict[str, Any], ImageSet]:
    """A row of ``results.json``, and the images it is of.

    Args:
        entry: what to draw with.
        spaces: to judge in.
        n: images to draw.
        seed: of the first of them.
        bar: told of every image drawn.
        batch_size: images at once; 0 is what is fast.
    """
    chain, sampler = entry.chain, entry.sampler
    images, images_per_second = drawn(entry, n, seed, bar, batch_size)
    bar(note="judging")
    row = {
        "name": entry.name,
        "model": entry.model,
        "sampler": chain.sampler,
        "spacing": chain.spacing,
        "times": list(sampler.times),
        "eta": chain.eta,
        "clip": chain.clip,
        "steps": len(chain.times),
        "nfe": sampler.nfe,
        "images_per_second": round(images_per_second, 2),
        "spaces": {space.name: space.scores(images) for space in spaces},
    }
    bar()
    return row, images


def drawn(
    entry: Entry, n: int, seed: int, bar: Update, batch_size: int = 0
) -> tuple[ImageSet, float]:
    """The images of these seeds, and how many a second were drawn, now or when they were.

    The sampler then knows its network calls, whichever it was. The arguments are those of
    `measure`.
    """
    sampler = entry.sampler

    def compute() -> dict[str, np.ndarray]:
        pixels, speed = draw(
            sampler, n, seed=seed, batch_size=batch_size, on_batch=lambda k: bar(advance=k)
        )
        calls = np.array(sampler.nfe)
        return {"pixels": pixels.numpy(), "images_per_second": np.array(speed), "nfe": calls}

    key = key_of(sampler.fingerprint, sampler.denoiser.device.type, n, seed)
    kept = remembered_arrays("samples", key, compute)
    sampler.nfe = int(kept["nfe"])
    images = ImageSet(torch.from_numpy(kept["pixels"]), f"the images of {entry.model}")
    return images, float(kept["images_per_second"])


def protocol(
    real: ImageSet, n: int, seed: int, metrics: Sequence[str] = ("kid", "fd")
) -> dict[str, Any]:
    """What every number of ``results.json`` was measured with."""
    return {
        "data": real.source,
        "data_sha256": real.sha256,
        "real": len(real),
        "samples": n,
        "seed": seed,
        "rounding": "uint8",
        **{name: METRICS[name].about for name in metrics},
    }


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of one chain as one: the means of its scores, and ``seeds``, how many."""
    speed = mean(row["images_per_second"] for row in rows)
    spaces = {space: _mean_scores([row["spaces"][space] for row in rows]) for space in
              rows[0]["spaces"]}  # fmt: skip
    return {
        **rows[0],
        "seeds": len(rows),
        "images_per_second": round(speed, 2),
        "spaces": spaces,
    }


def _mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(scores) == 1:
        return dict(scores[0])
    merged: dict[str, float] = {}
    for metric in without_errors(scores[0]):
        found = Score.over([Score(score[metric]) for score in scores])
        merged |= {metric: found.value, f"{metric}_se": found.se}
    return merged


def equal_quality_steps(rows: Sequence[Mapping[str, Any]], space: str) -> dict[str, Any]:
    """The fewest steps, of those searched, at which the base is as good as the finetuned model.

    Args:
        rows: of ``results.json``; those named ``base`` are searched.
        space: where KID is compared.
    """
    (finetuned,) = (row for row in rows if row["name"] == "finetuned")
    base = sorted((row for row in rows if row["name"] == "base"), key=lambda row: row["steps"])
    target = finetuned["spaces"][space]["kid"]
    reached = [row["steps"] for row in base if row["spaces"][space]["kid"] <= target]
    return {
        "space": space,
        "base_steps": reached[0] if reached else None,
        "finetuned_steps": finetuned["steps"],
        "searched": [row["steps"] for row in base],
    }
