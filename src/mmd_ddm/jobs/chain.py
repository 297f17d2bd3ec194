"""The chain that is meant for a model: its own, or what of another one a person named."""

from collections.abc import Mapping
from typing import Any

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import Model, build_sampler, resolve_chain
from mmd_ddm.settings import from_mapping, to_mapping

__all__ = ["ChainLike", "choose_chain", "describe_chain"]

# A whole chain, or some fields of `ChainConfig`, None where a person named none.
ChainLike = ChainConfig | Mapping[str, Any]


def choose_chain(
    model: Model, chain: ChainLike | None = None, *, truncated: bool = False
) -> ChainConfig:
    """The chain to draw with, its times filled in.

    Args:
        model: a finetuned one has a chain of its own, which holds where nothing else is given.
        chain: in place of the model's, or of its fields. As many steps as one of its budgets
            walk the times of that one.
        truncated: it begins from noised images, so that it may start anywhere.

    Raises:
        ValueError: times together with steps or a spacing, no such field, or a chain that cannot
            be walked.
    """
    own, named = model.chain or ChainConfig(), chain or {}
    if isinstance(named, ChainConfig):
        own, named = named, {}
    asked = {key: value for key, value in named.items() if value is not None}
    budgets = {one.steps: one for one in model.budgets}
    if asked.get("steps") in budgets and "times" not in asked:
        own = budgets[asked.pop("steps")]
    spaced = sorted(asked.keys() & {"steps", "spacing"})
    if "times" in asked and spaced:
        raise ValueError(f"--times and --{spaced[0]} contradict each other; give one of them")
    if spaced:
        asked["times"] = ()
    changed = from_mapping(ChainConfig, {**to_mapping(own), **asked}, "chain.")
    chosen = resolve_chain(changed, model.denoiser, truncated=truncated)
    build_sampler(chosen, model.denoiser, truncated=truncated)
    return chosen


def describe_chain(model: Model, chain: ChainConfig) -> str:
    """The chain, and how it stands to the model's own."""
    ends = [f"{t:g}" for t in chain.times]
    if len(ends) > 10:
        ends[3:-2] = ["..."]
    if model.chain is None:
        origin = "a base model: no chain of its own"
    else:
        known = chain in (model.chain, *model.budgets)
        origin = f"{'' if known else 'not '}what it was finetuned for"
    guided = [f"guidance {chain.guidance:g}, 2 calls a step"] * (chain.guidance != 1)
    about = "; ".join(
        [origin, *["x_0 clipped"] * bool(chain.clip), *guided, *model.denoiser.notes]
    )
    return f"{len(chain.times)} {chain.sampler} steps at {', '.join(ends)} ({about})"
