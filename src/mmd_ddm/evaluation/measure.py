"""The one way to a row of results: draw a chain, judge what it drew, write down how.

Every number is of images rounded to uint8, each drawn from noise of its own (`JUDGE`), which all
rows of a seed share. What a chain draws is remembered by all that decides it
(`Sampler.fingerprint`), so that no row is drawn twice.

Over S seeds a score is the mean, with the standard error sd / sqrt(S); KID, of which the
projections are known, has the error of all the seeds' images and of the real ones.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from statistics import mean
from typing import Any

import numpy as np
import torch

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics.registry import METRICS
from mmd_ddm.evaluation.scores import Score, without_errors
from mmd_ddm.evaluation.space import Space
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import JUDGE
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.progress import Update
from mmd_ddm.runs.store import remembered_arrays
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw

__all__ = [
    "Entry",
    "Measured",
    "drawn",
    "equal_quality_steps",
    "measure",
    "over_seeds",
    "protocol",
]


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


@dataclass(frozen=True)
class Measured:
    """What a chain drew, and how that was judged.

    Attributes:
        row: of the results.
        images: that it is of, of the first seed.
        kid: projections by the name of the space, where KID was asked for.
    """

    row: dict[str, Any]
    images: ImageSet
    kid: dict[str, Projections]


def measure(
    entry: Entry,
    spaces: Sequence[Space],
    n: int,
    seed: int,
    bar: Update,
    *,
    batch_size: int = 0,
) -> Measured:
    """A row of ``results.json``, with what it is of.

    Args:
        entry: what to draw with.
        spaces: to judge in.
        n: images to draw.
        seed: of their noise.
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
        **({"order": sampler.order} if hasattr(sampler, "order") else {}),
        "clip": chain.clip,
        "steps": len(chain.times),
        "nfe": sampler.nfe,
        "images_per_second": round(images_per_second, 2),
        "spaces": {space.name: space.scores(images) for space in spaces},
    }
    kid = {s.name: s.kid(images, f"noise of seed {seed}") for s in spaces if "kid" in s.metrics}
    bar()
    return Measured(row, images, kid)


def drawn(
    entry: Entry, n: int, seed: int, bar: Update, batch_size: int = 0
) -> tuple[ImageSet, float]:
    """The images of this seed, and how many a second were drawn, now or when they were.

    The sampler then knows its network calls, whichever it was. The arguments are those of
    `measure`.
    """
    sampler = entry.sampler

    def compute() -> dict[str, np.ndarray]:
        pixels, speed = draw(
            sampler, n, seed=seed, purpose=JUDGE, batch_size=batch_size,
            on_batch=lambda k: bar(advance=k),
        )  # fmt: skip
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
        "noise": f"image i has that of SHA-256(seed/{JUDGE}/i), in every row",
        "rounding": "uint8",
        **{name: METRICS[name].about for name in metrics},
    }


def over_seeds(found: Sequence[Measured]) -> Measured:
    """The rows of one chain as one: the means of its scores, and ``seeds``, how many."""
    first, rows = found[0], [one.row for one in found]
    kid = {
        space: reduce(operator.add, (one.kid[space] for one in found)) * (1 / len(found))
        for space in first.kid
    }
    spaces = {
        space: _mean_scores([row["spaces"][space] for row in rows])
        | ({"kid_se": kid[space].se} if space in kid else {})
        for space in first.row["spaces"]
    }
    row = {
        **first.row,
        "seeds": len(rows),
        "images_per_second": round(mean(row["images_per_second"] for row in rows), 2),
        "spaces": spaces,
    }
    return Measured(row, first.images, kid)


def _mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(scores) == 1:
        return dict(scores[0])
    merged: dict[str, float] = {}
    for metric in without_errors(scores[0]):
        found = Score.over([Score(score[metric]) for score in scores])
        merged |= {metric: found.value, f"{metric}_se": found.se}
    return merged


def equal_quality_steps(
    base: Sequence[Measured], finetuned: Measured, space: str, among: int = 1
) -> dict[str, Any]:
    """Which of the base's step counts the finetuned model beats, and which beat it.

    Both are said where the paired difference of KID is above zero for certain; the fewest steps
    come first, and the first count that is not beaten ends the search, so that the search as a
    whole errs as one test does.

    Args:
        base: the base at several step counts.
        finetuned: the finetuned model.
        space: where KID is compared.
        among: how many such searches there are, which together err as one test does.
    """
    rising = sorted(base, key=lambda one: int(one.row["steps"]))
    differences = {
        int(one.row["steps"]): Score(less.value, less.se)
        for one in rising
        for less in [one.kid[space] - finetuned.kid[space]]
    }
    beaten = list(takewhile(lambda k: differences[k].beyond(among), differences))
    better = [k for k, less in differences.items() if less.times(-1).beyond(among)]
    return {
        "space": space,
        "finetuned_steps": finetuned.row["steps"],
        "searched": list(differences),
        "beaten_steps": beaten[-1] if beaten else None,
        "base_steps": better[0] if better else None,
    }
