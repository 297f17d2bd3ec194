"""A base and what was finetuned from it, judged alike; `verify` repeats what `finetune` does."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.data.images import Split
from mmd_ddm.evaluation.measure import Entry, Measured, equal_quality_steps, measure
from mmd_ddm.evaluation.paired import above, share_excess
from mmd_ddm.evaluation.scores import ABOVE, ABOVE_FEWER
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.jobs.build import Model, build_sampler
from mmd_ddm.jobs.roles import roles_of
from mmd_ddm.runs.progress import Progress

__all__ = ["compare_to_base", "judge_chain", "judge_spaces", "other_budgets"]


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


def other_budgets(chain: ChainConfig, budgets: Sequence[ChainConfig]) -> list[ChainConfig]:
    """The budgets besides the chain, which comes first in all records."""
    return [one for one in budgets if one.steps != chain.steps]


def compare_to_base(
    base: Sequence[Measured], finetuned: Sequence[Measured], spaces: Sequence[Space]
) -> dict[str, Any]:
    """Rows and ``speedup`` of ``results.json``; each row of the base says how far it lies above.

    That is above the finetuned model in as many steps, or on its first chain. Of several chains,
    each row of the finetuned model also says how far it lies above the one of the next fewer
    steps, and the speed-up is the largest.

    Args:
        base: on the finetuned chains first, then at other step counts.
        finetuned: the finetuned model, on each of its chains.
        spaces: all of them.
    """
    optimised, judges = (
        [space.name for space in spaces if space.role == role]
        for role in ("optimised", "held-out")
    )
    by_class = bool(finetuned[0].class_kid)
    floors = {
        space.name: (space.class_kid if by_class else space.kid)(space.other, "other")
        for space in spaces
        if space.other is not None
    }
    after = {one.row["steps"]: one for one in finetuned}
    rows = []
    for one in base:
        like = after.get(one.row["steps"])
        higher = _above(one, like or finetuned[0])
        if like is not None:
            excess = share_excess(one.judged, like.judged, floors, optimised, judges)
            higher = {space: found | excess.get(space, {}) for space, found in higher.items()}
        rows.append({**one.row, ABOVE: higher})
    for one in finetuned:
        fewer = [steps for steps in after if steps < one.row["steps"]]
        higher = _above(one, after[max(fewer)]) if fewer else {}
        rows.append({**one.row, **({ABOVE_FEWER: higher} if len(after) > 1 else {})})
    carrier = [*judges, *optimised][0]
    alike = [one for one in base if one.row.get("guidance") == finetuned[0].row.get("guidance")]
    found = [equal_quality_steps(alike, one, carrier, among=len(after)) for one in finetuned]
    # Of equals, and of none, the first.
    return {"rows": rows, "speedup": max(found, key=_times_fewer)}


def _above(one: Measured, other: Measured) -> dict[str, dict[str, float]]:
    found = above(one.kid, other.kid)
    for metric in ("class_kid", "accuracy"):
        for space, less in above(getattr(one, metric), getattr(other, metric), metric).items():
            found[space] |= less
    return found


def _times_fewer(speedup: Mapping[str, Any]) -> float:
    return (speedup["beaten_steps"] or 0) / float(speedup["finetuned_steps"])
