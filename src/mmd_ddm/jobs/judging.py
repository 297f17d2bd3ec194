"""What ``finetune``, ``evaluate`` and ``demo`` judge with, under one progress bar each."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.draw import draw
from mmd_ddm.evaluation.judge import Space, judge, result_row
from mmd_ddm.evaluation.metrics import METRICS
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.registry import FeatureExtractor
from mmd_ddm.jobs.build import Model, build_sampler
from mmd_ddm.runs.progress import Progress

__all__ = ["build_spaces", "evaluate_chain", "protocol"]


def build_spaces(
    phis: Mapping[str, FeatureExtractor],
    roles: Mapping[str, str],
    reference: ImageSet,
    heldout: ImageSet,
    samples: int,
    device: torch.device,
    progress: Progress,
) -> list[Space]:
    """Every space with its held-out features, and other reals as many as samples (floor)."""
    spaces = []
    other_images = reference.subset(samples)
    with progress.bar("features of the data", len(phis)) as bar:
        for name, phi in phis.items():
            real, other = (
                cached_features(images, phi, device=device) for images in (heldout, other_images)
            )
            spaces.append(Space(name, roles[name], phi, real.to(device), other))
            bar(advance=1, note=name)
    return spaces


def evaluate_chain(
    name: str,
    model: Model,
    chain: ChainConfig,
    n: int,
    seed: int,
    spaces: Sequence[Space],
    progress: Progress,
) -> tuple[dict[str, Any], Tensor]:
    """Draw n images through this chain and judge them: a row of results, and the images."""
    sampler = build_sampler(chain, model.denoiser)
    with progress.bar(f"{name}, {len(sampler.times)} steps", n) as bar:
        pixels, speed = draw(sampler, n, seed=seed, on_batch=lambda k: bar(advance=k))
        bar(note="judging")
        metrics = judge(pixels, spaces, model.denoiser.device)
        bar()
    return result_row(name, model.name, chain, sampler, speed, metrics), pixels


def protocol(
    heldout: ImageSet, n: int, seed: int, metrics: Sequence[str] = ("kid", "fd")
) -> dict[str, Any]:
    """What every number of ``results.json`` was measured with."""
    return {
        "data": heldout.source,
        "data_sha256": heldout.sha256,
        "real": len(heldout),
        "samples": n,
        "seed": seed,
        "rounding": "uint8",
        **{name: METRICS[name].about for name in metrics},
    }
