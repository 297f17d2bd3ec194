"""The one way to a row of results: draw a chain, judge what it drew, write down how.

Every number is of images rounded to uint8, each drawn from noise of its own (`JUDGE`), which all
rows of a seed share. What a chain draws is remembered by all that decides it
(`Sampler.fingerprint`), so that no row is drawn twice.

Over S seeds a score is the mean, with the standard error sd / sqrt(S); KID, of which the
projections are known, has the error of all the seeds' images and of the real ones.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import takewhile
from statistics import mean
from typing import Any

import numpy as np
import torch

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics.by_class import ABOUT
from mmd_ddm.evaluation.metrics.registry import METRICS
from mmd_ddm.evaluation.scores import Score, without_errors
from mmd_ddm.evaluation.space import Space
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import JUDGE, image_seeds
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
        class_kid: the same of class KID, where classes are known.
        accuracy: the same of accuracy.
    """

    row: dict[str, Any]
    images: ImageSet
    kid: dict[str, Projections]
    class_kid: dict[str, Projections] = field(default_factory=dict)
    accuracy: dict[str, Projections] = field(default_factory=dict)

    @property
    def judged(self) -> dict[str, Projections]:
        """Class KID where classes are known, else KID."""
        return self.class_kid or self.kid


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

    A conditional model draws each image under the class or caption of a real one.

    Args:
        entry: what to draw with.
        spaces: to judge in, all with the same real images.
        n: images to draw.
        seed: of their noise.
        bar: told of every image drawn.
        batch_size: images at once; 0 is what is fast.
    """
    chain, sampler = entry.chain, entry.sampler
    images, images_per_second = drawn(entry, n, seed, bar, batch_size, spaces[0].real)
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
        **({"guidance": chain.guidance} if sampler.denoiser.classes else {}),
        "steps": len(chain.times),
        "nfe": sampler.nfe,
        "images_per_second": round(images_per_second, 2),
        "spaces": {space.name: space.scores(images) for space in spaces},
    }
    noise = f"noise of seed {seed}"
    kid = {s.name: s.kid(images, noise) for s in spaces if "kid" in s.metrics}
    labelled = [s for s in spaces if s.sees_classes_of(images)]
    if labelled:
        row["classes"] = {s.name: s.by_class(images)["each"] for s in labelled}
    bar()
    classes, told = (
        {s.name: found(s, images, noise) for s in labelled}
        for found in (Space.class_kid, Space.accuracy)
    )
    return Measured(row, images, kid, classes, told)


def drawn(
    entry: Entry,
    n: int,
    seed: int,
    bar: Update,
    batch_size: int = 0,
    like: ImageSet | None = None,
) -> tuple[ImageSet, float]:
    """The images of this seed, and how many a second were drawn, now or when they were.

    The sampler then knows its network calls, whichever it was. The arguments are those of
    `measure`, and the reference images whose classes or captions to draw under.
    """
    sampler, denoiser = entry.sampler, entry.sampler.denoiser
    reference = denoiser.under(like.labels, like.captions) if like else None

    def compute() -> dict[str, np.ndarray]:
        pixels, speed = draw(
            sampler, n, seed=seed, purpose=JUDGE, batch_size=batch_size, reference=reference,
            on_batch=lambda k: bar(advance=k),
        )  # fmt: skip
        calls = np.array(sampler.nfe)
        return {"pixels": pixels.numpy(), "images_per_second": np.array(speed), "nfe": calls}

    under = [[*like.captions] or reference.labels.tolist()] if like and reference else []
    key = key_of(sampler.fingerprint, sampler.denoiser.device.type, n, seed, *under)
    kept = remembered_arrays("samples", key, compute)
    sampler.nfe = int(kept["nfe"])
    images = ImageSet(torch.from_numpy(kept["pixels"]), f"the images of {entry.model}")
    if like and reference:  # image i is of the class, or has the caption, of a real one
        rows = [one % len(like) for one in image_seeds(seed, JUDGE, n)]
        labels = None if like.labels is None else like.labels[rows]
        captions = tuple(like.captions[row] for row in rows) if denoiser.of_captions else ()
        images = replace(images, labels=labels, captions=captions)
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
        **(_classes(real) if real.labels is not None else {}),
        **{name: METRICS[name].about for name in metrics},
    }


def _classes(real: ImageSet) -> dict[str, Any]:
    """Of a protocol with classes."""
    drawn = "image i is of the class of the real image number SHA-256(seed/judge/i), cyclically"
    return {"classes": list(real.classes), "labels": drawn, **ABOUT}


def over_seeds(found: Sequence[Measured]) -> Measured:
    """The rows of one chain as one: the means of its scores, and ``seeds``, how many."""
    first, rows = found[0], [one.row for one in found]
    kid, classes = (
        {
            space: reduce(operator.add, (kids[space] for kids in every)) * (1 / len(found))
            for space in every[0]
        }
        for every in ([one.kid for one in found], [one.class_kid for one in found])
    )
    spaces = {
        space: _mean_scores([row["spaces"][space] for row in rows])
        | ({"kid_se": kid[space].se} if space in kid else {})
        | ({"class_kid_se": classes[space].se} if space in classes else {})
        for space in first.row["spaces"]
    }
    row = {
        **first.row,
        "seeds": len(rows),
        "images_per_second": round(mean(row["images_per_second"] for row in rows), 2),
        "spaces": spaces,
    }
    return Measured(row, first.images, kid, classes)


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
        for less in [one.judged[space] - finetuned.judged[space]]
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
