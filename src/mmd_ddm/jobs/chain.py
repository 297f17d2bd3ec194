"""The chain that is meant for a model: its own, or what of another one a person named."""

from dataclasses import replace
from typing import Any

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import Model, build_sampler, resolve_times

__all__ = ["choose_chain", "describe_chain"]


def choose_chain(model: Model, chain: ChainConfig | None = None, **given: Any) -> ChainConfig:
    """The chain to draw with, its times filled in.

    Args:
        model: a finetuned one has a chain of its own, which holds where nothing else is given.
        chain: in place of the model's.
        given: fields of `ChainConfig` that the person named; None where they did not.

    Raises:
        ValueError: times together with steps or a spacing, or a chain that cannot be walked.
    """
    asked = {key: value for key, value in given.items() if value is not None}
    spaced = sorted(asked.keys() & {"steps", "spacing"})
    if "times" in asked and spaced:
        raise ValueError(f"--times and --{spaced[0]} contradict each other; give one of them")
    if spaced:
        asked["times"] = ()
    chain = replace(chain or model.chain or ChainConfig(), **asked)
    chain = resolve_times(chain, model.denoiser.schedule)
    build_sampler(chain, model.denoiser)
    return chain


def describe_chain(model: Model, chain: ChainConfig) -> str:
    """The chain, and how it stands to the model's own."""
    ends = [f"{t:g}" for t in chain.times]
    if len(ends) > 10:
        ends[3:-2] = ["..."]
    if model.chain is None:
        origin = "a base model: no chain of its own"
    else:
        origin = f"{'' if chain == model.chain else 'not '}what it was finetuned for"
    return f"{len(chain.times)} {chain.sampler} steps at {', '.join(ends)} ({origin})"
