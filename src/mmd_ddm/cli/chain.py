"""The options that name a chain, and the chain they mean for a model.

A finetuned model has a chain of its own, which it draws with unless told otherwise.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmd_ddm.config import ChainConfig

if TYPE_CHECKING:
    from mmd_ddm.jobs.build import Model

__all__ = [
    "ClipOption",
    "EtaOption",
    "SamplerOption",
    "SpacingOption",
    "TimesOption",
    "choose_chain",
    "describe_chain",
    "parse_times",
]

SamplerOption = Annotated[str | None, typer.Option(help="ddim, ddpm-small, dpm-solver++-2m ...")]
SpacingOption = Annotated[str | None, typer.Option(help="leading, trailing, quadratic-code ...")]
TimesOption = Annotated[
    str | None, typer.Option(help="A custom list, noisiest first: 999,640,320,80")
]
EtaOption = Annotated[float | None, typer.Option(help="Noise that DDIM adds; 0 is none.")]
ClipOption = Annotated[
    bool | None, typer.Option("--clip/--no-clip", help="Clamp predictions of x_0 to -1 ... 1.")
]


def parse_times(text: str | None) -> tuple[float, ...] | None:
    """``999,640,320,80`` as numbers; None stays None.

    Raises:
        ValueError: anything else.
    """
    if text is None:
        return None
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"times are numbers with commas between, as 999,640,320,80; got {text!r}"
        ) from error


def parse_steps(text: str) -> list[int]:
    """``5,10`` as whole numbers, each once.

    Raises:
        ValueError: anything else.
    """
    words = split_words(text)
    for word in words:
        if not word.isdecimal():
            raise ValueError(f"--steps takes whole numbers, 5,10,15,20; got {word!r}")
    return [int(word) for word in words]


def split_words(text: str) -> list[str]:
    """Words with commas between, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def choose_chain(model: "Model", **given: Any) -> ChainConfig:
    """The chain to draw with, its times filled in.

    Args:
        model: whose own chain holds where nothing else is given.
        given: fields of `ChainConfig` that the person named; None where they did not.

    Raises:
        ValueError: times together with steps or a spacing, or a chain that cannot be walked.
    """
    from mmd_ddm.jobs.build import build_sampler, resolve_times

    asked = {key: value for key, value in given.items() if value is not None}
    spaced = sorted(asked.keys() & {"steps", "spacing"})
    if "times" in asked and spaced:
        raise ValueError(f"--times and --{spaced[0]} contradict each other; give one of them")
    if spaced:
        asked["times"] = ()
    chain = replace(model.chain or ChainConfig(), **asked)
    chain = resolve_times(chain, model.denoiser.schedule)
    build_sampler(chain, model.denoiser)
    return chain


def describe_chain(model: "Model", chain: ChainConfig) -> str:
    """The chain, and how it stands to the model's own."""
    ends = [f"{t:g}" for t in chain.times]
    if len(ends) > 10:
        ends[3:-2] = ["..."]
    if model.chain is None:
        origin = "a base model: no chain of its own"
    else:
        origin = f"{'' if chain == model.chain else 'not '}what it was finetuned for"
    return f"{len(chain.times)} {chain.sampler} steps at {', '.join(ends)} ({origin})"
