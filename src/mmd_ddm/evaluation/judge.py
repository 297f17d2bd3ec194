"""Judge drawn images in feature spaces, with the protocol.

Every number is of images rounded to uint8, drawn from seeds ``seed, seed + 1, ...``, against
real images that finetuning never saw. Beside it stands the *floor*: the same number between two
sets of real images, which no model can honestly beat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmd_ddm.config import ChainConfig
from mmd_ddm.evaluation.metrics import METRICS, Real
from mmd_ddm.features.bank import extract
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.samplers.base import Sampler

__all__ = ["Space", "equal_quality_steps", "judge", "result_row"]


@dataclass(frozen=True)
class Space:
    """A feature space with the held-out real images in it.

    Attributes:
        name: of the space.
        role: optimised, selection or held-out.
        phi: the extractor.
        real: [m, d], the held-out images, on the device that the metrics are computed on.
        other_real: [n, d], other real images, as many as are drawn: for the floor.
        chosen: the metrics to compute, names of `METRICS`.
    """

    name: str
    role: str
    phi: FeatureExtractor
    real: Float[Tensor, "m d"]
    other_real: Float[Tensor, "n d"]
    chosen: tuple[str, ...] = ("fd", "kid")

    def describe(self) -> dict[str, Any]:
        """For ``results.json``: the role, the weights, the floor."""
        return {
            "role": self.role,
            "dim": self.real.shape[1],
            "sha256": self.phi.sha256,
            "floor": self.metrics(self.other_real),
        }

    def metrics(self, x: Float[Tensor, "k d"]) -> dict[str, float]:
        """The chosen numbers between these features and the real ones."""
        return {key: v for name in self.chosen for key, v in self.score(name, x).items()}

    def score(self, metric: str, x: Float[Tensor, "k d"]) -> dict[str, float]:
        """The numbers of one metric of `METRICS`.

        Raises:
            ValueError: features of another dimension, or too few.
        """
        if x.shape[1] != self.real.shape[1]:
            raise ValueError(
                f"features of {self.name} have dimension {x.shape[1]}, those of the real images "
                f"{self.real.shape[1]}"
            )
        return METRICS[metric].score(x.to(self.real.device), self._real)

    @cached_property
    def _real(self) -> Real:
        return Real(self.real, self.phi)


def judge(
    pixels: UInt8[Tensor, "n c h w"], spaces: Sequence[Space], device: torch.device | str = "cpu"
) -> dict[str, dict[str, float]]:
    """The chosen metrics of these images, in every space."""
    return {
        space.name: space.metrics(extract(pixels, space.phi, device=device)) for space in spaces
    }


def result_row(
    name: str,
    model: str,
    chain: ChainConfig,
    sampler: Sampler,
    images_per_second: float,
    spaces: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """One row of ``results.json``."""
    return {
        "name": name,
        "model": model,
        "sampler": chain.sampler,
        "spacing": chain.spacing,
        "times": list(sampler.times),
        "eta": chain.eta,
        "clip": chain.clip,
        "steps": len(sampler.times),
        "nfe": sampler.nfe,
        "images_per_second": round(images_per_second, 2),
        "spaces": spaces,
    }


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
