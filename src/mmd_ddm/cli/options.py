"""Options that several verbs have, and those that settings become.

A setting's comment in `mmd_ddm.config` is the help of its option; what is not given keeps what the
TOML file, or the dataclass, says.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from mmd_ddm import config
from mmd_ddm.settings import comments, field_of, load, names_in, numbers, whole, whole_numbers

__all__ = [
    "READING", "Data", "Device", "DryRun", "ForceNewRun", "Model", "OwnData", "Run", "Seed",
    "Text", "Tracker", "Words", "chain_options", "opt", "read_values",
    "reading_options", "settings_options",
]  # fmt: skip


def opt(text: str, *flags: str, **more: Any) -> Any:
    """What is behind ``Annotated[int, ...]`` of a verb: an option, by its help."""
    return typer.Option(*flags, help=text, **more)


Words, Text = list[str] | None, str | None
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Run, diffusers folder, hub id, or fashion-mnist.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Finished run of finetune or demo.")]
Data = Annotated[str, opt("Real images: folder, zip, IDX, .npy/.npz, or fashion-mnist-heldout.")]
OwnData = Annotated[Text, opt("Real images; default: what the run held out.", "--data")]
Seed = Annotated[int, opt("Of the noise.")]
Device = Annotated[str, opt("auto, cpu, cuda ...")]
ForceNewRun = Annotated[bool, opt("Where OUT holds another run: OUT-2 ...", "--force-new-run")]
DryRun = Annotated[bool, opt("Say what would be done; stop.", "--dry-run")]
Tracker = Annotated[
    Words, opt("tensorboard (default, OUT/trackers), wandb, ... or none; repeatable.", "--tracker")
]
_Config = Annotated[Path | None, opt("TOML file of settings.", "--config")]
_Set = Annotated[Words, opt("Any setting: select.every=25; repeatable.", "--set")]
READING = " ".join(field.name for field in dataclasses.fields(config.ReadConfig))
_WORDS = {"model": "MODEL"}  # settings that are arguments
_STEPS = {"budgets": "steps"}  # one number of them is chain.steps
_REQUIRED = {"model", "data"}
_SAMPLERS = (("mmd_ddm.samplers.registry", "SAMPLERS"),)
_SPACINGS = tuple(("mmd_ddm.maths.times", name) for name in ("SPACINGS", "SCHEDULE_SPACINGS"))
_SPACES = tuple(("mmd_ddm.features.registry", name) for name in ("FEATURES", "WITH_ARGUMENT"))
_NAMES = {  # by option, the dictionaries whose keys it takes
    "sampler": _SAMPLERS, "samplers": _SAMPLERS, "spacing": _SPACINGS, "features": _SPACES,
    "space": _SPACES, "metrics": (("mmd_ddm.evaluation.metrics.registry", "METRICS"),),
    "kernel": (("mmd_ddm.maths.kernels", "KERNELS"),),
}  # fmt: skip


def settings_options(kind: type, settings: str, *, file: bool = True) -> Callable[..., Any]:
    """A verb that takes a ``config``: these settings of it become options.

    Args:
        kind: the dataclass.
        settings: names with spaces between; ``chain.times`` becomes ``--times``. ``budgets``
            becomes ``--steps``, which sets chain.steps as well, to the most.
        file: take ``--config FILE`` as well.
    """
    more = [_keyword("config_file", _Config, None)] if file else []
    complete = _with_recipe if kind is config.FinetuneConfig else None

    def build(given: dict[str, Any], more: dict[str, Any]) -> Any:
        return load(kind, more.get("config_file"), more["set_"] or (), given, complete)

    return _with_options("config", kind, settings, build, [*more, _keyword("set_", _Set, None)])


def _with_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """What completes the settings of a finetuning; only a recipe needs torch."""
    if settings.get("recipe") != "auto":
        return settings
    from mmd_ddm.jobs.recipe import complete

    return complete(settings)


def chain_options(settings: str) -> Callable[..., Any]:
    """A verb that takes as ``given`` a mapping of settings of the chain that were given."""
    return _with_options("given", config.ChainConfig, settings, lambda given, more: given)


def reading_options(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that takes as ``read`` how images are read."""
    kind = config.ReadConfig
    made = _with_options("read", kind, READING, lambda given, more: kind(**given))
    return typing.cast(Callable[..., None], made(verb))


def _with_options(
    name: str,
    kind: type,
    settings: str,
    build: Callable[[dict[str, Any], dict[str, Any]], Any],
    more: Sequence[Parameter] = (),
) -> Callable[..., Any]:
    """Give a verb these settings, and more, as options; what is built of both is ``name``."""
    names = settings.split()
    options = [*(_option(kind, one) for one in names), *more]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        others = dict(inspect.signature(verb).parameters)
        del others[name]
        merged = [*options, *(p.replace(kind=Parameter.KEYWORD_ONLY) for p in others.values())]

        @wraps(verb)
        def run(**given: Any) -> None:
            own = {p.name: given.pop(p.name) for p in options}
            verb(**{name: build(_given(kind, names, own), own)}, **given)

        run.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in merged}
        return run

    return decorate


def _option(kind: type, name: str) -> Parameter:
    """A setting as typer's parameter; None is what nobody gave."""
    hint, default = field_of(kind, name)
    text = comments(kind)[name]
    about: dict[str, Any] = {"help": f"{text[0].upper()}{text[1:].rstrip('.')}."}
    if name in _WORDS:
        made = typer.Argument(metavar=_WORDS[name], **about)
        return _keyword(name, Annotated[str, made], Parameter.empty)
    if name in _REQUIRED:
        return _keyword(name, Annotated[str, typer.Option(**about)], Parameter.empty)
    flag = f"--{_parameter(name).replace('_', '-')}"
    if hint is bool and kind is config.ChainConfig:  # either may differ from the model's own
        flag = f"{flag}/--no-{flag[2:]}"
    listed = typing.get_origin(hint) is tuple
    if listed and typing.get_args(hint)[0] is str:
        about["help"] += " Repeatable."
    if default not in ("", (), False) and kind is not config.ChainConfig:
        about["show_default"] = ", ".join(default) if listed else f"{default}"
    if name in _STEPS:
        about["show_default"] = f"{config.ChainConfig.steps}"
    plain = {float: str, int: str, str: list[str]}[typing.get_args(hint)[0]] if listed else hint
    return _keyword(_parameter(name), Annotated[plain | None, typer.Option(flag, **about)], None)


def _keyword(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _parameter(name: str) -> str:
    return _STEPS.get(name, name.rpartition(".")[2])


def _given(kind: type, names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, lists of numbers parsed."""
    found = {name: options[_parameter(name)] for name in names}
    asked = {
        name: numbers(value) if field_of(kind, name)[0] == tuple[float, ...] else value
        for name, value in found.items()
        if value not in (None, [])
    }
    if "budgets" in asked:
        budgets = whole_numbers(str(asked["budgets"])) or whole_numbers("none")
        asked |= {"budgets": budgets, "chain.steps": max(budgets)}
    return asked


def read_values(verb: Callable[..., None]) -> Callable[..., None]:
    """Let shells complete names, and whole numbers be written as 1e3, too.

    Not those with bounds, which are few.
    """
    for one in inspect.signature(verb).parameters.values():
        hint, about = (*typing.get_args(one.annotation), None)[:2]
        if hint in (int, int | None, list[int] | None) and getattr(about, "min", 0) is None:
            about.parser = _integer
        if one.name in _NAMES:
            about.autocompletion = _completion(_NAMES[one.name])
    return verb


def _completion(places: Sequence[tuple[str, str]]) -> Callable[[str], list[str]]:
    """Of the last word of a list, by the names that are there."""

    def complete(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        found = (name for place in places for name in names_in(*place))
        return [f"{before}{comma}{name}" for name in found if name.startswith(word)]

    return complete


def _integer(text: Any) -> int:
    if isinstance(found := whole(text), int):
        return found
    raise typer.BadParameter(f"{text!r} is not a valid integer.")
