"""Which rows a comparison of samplers has."""

from collections.abc import Sequence

from mmd_ddm.config import ChainConfig
from mmd_ddm.evaluation.measure import Entry
from mmd_ddm.jobs.build import Model, build_sampler, resolve_chain
from mmd_ddm.maths.times import check_start
from mmd_ddm.samplers.registry import PUBLISHED_SPACINGS, SAMPLERS, orders_of

__all__ = ["PUBLISHED", "choose_samplers", "plan_entries"]

PUBLISHED = "published"  # the spacing that a sampler's authors took

# Ancestral sampling as its authors do it; the others as the model has it.
_CLIPPED = ("ddpm-small", "ddpm-large", "analytic-dpm", "analytic-ddim")


def _spacing(sampler: str, spacing: str) -> str:
    """Samplers that were published on no times of their own take the default ones."""
    if spacing != PUBLISHED:
        return spacing
    return PUBLISHED_SPACINGS.get(sampler, ChainConfig.spacing)


def _orders(sampler: str, k: int, spacings: Sequence[str]) -> list[int]:
    """Every order that K steps can have, where a sampler is to be shown at its best."""
    found = [p for p in orders_of(sampler) if p <= max(k, 2)] if PUBLISHED in spacings else []
    return found or [0]


def choose_samplers(names: Sequence[str]) -> list[str]:
    """The samplers of these names; ``all`` is every one.

    Raises:
        ValueError: an unknown name.
    """
    if list(names) == ["all"]:
        return list(SAMPLERS)
    for name in names:
        if name not in SAMPLERS:
            raise ValueError(f"unknown sampler {name!r}; choose all, or of {', '.join(SAMPLERS)}")
    return list(names)


def plan_entries(
    base: Model,
    runs: Sequence[Model],
    samplers: Sequence[str],
    spacings: Sequence[str],
    steps: Sequence[int],
    times: Sequence[float] = (),
) -> tuple[list[Entry], list[str]]:
    """All rows, and a note for each sampler that cannot walk some of its chains.

    Finetuned runs come first, each on its own chain, or on those of its budgets that are among the
    steps, if any is. Where two spacings give a sampler the same
    times, it has one row. With `PUBLISHED`, a sampler with orders walks each of them.

    Args:
        base: walked by every sampler.
        runs: finetuned models.
        samplers: names, or ``all``, of which those that cannot walk are left out.
        spacings: names; `PUBLISHED` is each sampler's own.
        steps: the numbers K.
        times: a custom list, walked as well.

    Raises:
        ValueError: a run that is no finetuned model or draws other images than the base; an
            unknown sampler or spacing; K or times that no chain can have; a sampler asked for by
            name that can walk none of its chains; nothing to do.
    """
    entries = [entry for run in runs for entry in _tuned(run, base, steps)]
    faults: dict[tuple[str, str], dict[int, None]] = {}
    able = set()
    schedule = base.denoiser.schedule
    for asked in _chains(choose_samplers(samplers), spacings, steps, times):
        chain = resolve_chain(asked, base.denoiser, truncated=True)
        try:
            sampler = build_sampler(chain, base.denoiser)
            check_start(sampler.times, schedule)
        except ValueError as error:
            faults.setdefault((chain.sampler, str(error)), {})[chain.steps] = None
            continue
        able.add(chain.sampler)
        entries.append(Entry("base", base.name, chain, sampler))
    notes = [
        (name, f"left out {name} at {', '.join(map(str, which))} steps: {fault}")
        for (name, fault), which in faults.items()
    ]
    for name, note in notes:
        if name in samplers and name not in able:
            raise ValueError(f"{note} (in none of the chains asked for)")
    if not entries:
        raise ValueError(f"nothing to compare: {notes[0][1] if notes else 'no sampler, no run'}")
    distinct: dict[tuple[object, ...], Entry] = {}
    for e in entries:
        chain = e.chain
        walked = (e.name, e.model, chain.sampler, chain.order, chain.steps, e.sampler.times)
        distinct.setdefault(walked, e)
    return list(distinct.values()), [note for _, note in notes]


def _tuned(run: Model, base: Model, steps: Sequence[int]) -> list[Entry]:
    if run.chain is None:
        raise ValueError(f"{run.name} is not a finetuned model; give the folder of a finetune run")
    if run.denoiser.shape != base.denoiser.shape:
        ours, theirs = (
            "x".join(map(str, model.denoiser.shape[1:]))
            + f" with {model.denoiser.shape[0]} channels"
            for model in (base, run)
        )
        raise ValueError(f"{run.name} draws {theirs}, but {base.name} draws {ours}")
    asked = [one for one in run.budgets if one.steps in steps] or [run.chain]
    chains = [resolve_chain(one, run.denoiser) for one in asked]
    return [
        Entry("finetuned", run.name, chain, build_sampler(chain, run.denoiser)) for chain in chains
    ]


def _chains(
    samplers: Sequence[str],
    spacings: Sequence[str],
    steps: Sequence[int],
    times: Sequence[float],
) -> list[ChainConfig]:
    asked: list[list[tuple[int, str, tuple[float, ...]]]]
    asked = [[(k, spacing, ()) for spacing in spacings] for k in steps]
    if times:
        asked.append([(len(times), "custom", tuple(times))])
    return [
        ChainConfig(
            k,
            sampler,
            _spacing(sampler, spacing),
            custom,
            order=order,
            clip=sampler in _CLIPPED or None,
        )
        for group in asked
        for sampler in samplers
        for k, spacing, custom in group
        for order in _orders(sampler, k, spacings)
    ]
