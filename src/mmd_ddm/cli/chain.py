"""The options that name a chain."""

from typing import Annotated

import typer

__all__ = [
    "ClipOption",
    "EtaOption",
    "SamplerOption",
    "SpacingOption",
    "TimesOption",
    "parse_steps",
    "parse_times",
    "split_words",
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
