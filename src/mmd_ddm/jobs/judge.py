"""A base and what was finetuned from it, judged alike; `verify` repeats what `finetune` does."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.data.images import Split
from mmd_ddm.evaluation.measure import Entry, Measured, equal_quality_steps, measure
from mmd_ddm.evaluation.paired import above, share_excess
from mmd_ddm.evaluation.scores import ABOVE
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.jobs.build import Model, build_sampler
from mmd_ddm.jobs.roles import roles_of
from mmd_ddm.runs.progress import Progress

__all__ = ["compare_to_base", "judge_chain", "judge_spaces"]


def judge_spaces(
    config: FinetuneConfig,
    phis: Mapping[str, FeatureExtractor],
    data: Split,
    device: torch.device,
) -> list[Space]:
    """Every space with the held-out images; the floor is that of images that were matched."""
    other = data.matched.subset(config.judge_samples)
    return [
        Space(name, role, phis[name], data.heldout, other, device=device)
        for name, role in roles_of(config).items()
    ]


def judge_chain(
    name: str,
    model: Model,
    chain: ChainConfig,
    spaces: Sequence[Space],
    config: FinetuneConfig,
    progress: Progress,
) -> Measured:
    """A row, ``base`` or ``finetuned``: both begin with the same noise."""
    entry = Entry(name, model.name, chain, build_sampler(chain, model.denoiser))
    with progress.bar(f"{name}, {len(chain.times)} steps", config.judge_samples) as bar:
        return measure(entry, spaces, config.judge_samples, config.seed, bar)


def compare_to_base(
    base: Sequence[Measured], finetuned: Measured, spaces: Sequence[Space]
) -> dict[str, Any]:
    """Rows and ``speedup`` of ``results.json``; each row of the base says how far it lies above.

    Args:
        base: on the finetuned chain first, then at other step counts.
        finetuned: the finetuned model.
        spaces: all of them.
    """
    optimised, judges = (
        [space.name for space in spaces if space.role == role]
        for role in ("optimised", "held-out")
    )
    floors = {
        space.name: space.kid(space.other, "other") for space in spaces if space.other is not None
    }
    excess = share_excess(base[0].kid, finetuned.kid, floors, optimised, judges)
    rows = []
    for one in base:
        higher = above(one.kid, finetuned.kid)
        if one is base[0]:
            higher = {space: found | excess.get(space, {}) for space, found in higher.items()}
        rows.append({**one.row, ABOVE: higher})
    return {
        "rows": [*rows, finetuned.row],
        "speedup": equal_quality_steps(base, finetuned, [*judges, *optimised][0]),
    }
