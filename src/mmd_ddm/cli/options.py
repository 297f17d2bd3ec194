"""Options that several verbs have, and those that settings become.

A setting's comment in `mmd_ddm.config` is the help of its option; what is not given keeps what the
TOML file, or the dataclass, says.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable
from functools import cache, wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from mmd_ddm import config, methods
from mmd_ddm.settings import load, numbers, whole, whole_numbers

__all__ = [
    "READING", "Data", "Device", "DryRun", "ForceNewRun", "Model", "OwnData", "Run", "Seed",
    "Text", "Tracker", "Words", "chain_options", "comments", "opt", "read_integers",
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


def settings_options(kind: type, settings: str, *, file: bool = True) -> Callable[..., Any]:
    """A verb that takes a ``config``: these settings of it become options.

    Args:
        kind: the dataclass.
        settings: names with spaces between; ``chain.times`` becomes ``--times``. ``budgets``
            becomes ``--steps``, which sets chain.steps as well, to the most.
        file: take ``--config FILE`` as well.
    """
    names = settings.split()
    own = [_option(kind, name) for name in names]
    if file:
        own.append(_keyword("config_file", _Config, None))
    own.append(_keyword("set_", _Set, None))

    def build(given: dict[str, Any]) -> Any:
        path, overrides = given.pop("config_file", None), given.pop("set_") or ()
        complete = _with_recipe if kind is config.FinetuneConfig else None
        return load(kind, path, overrides, _given(kind, names, given), complete)

    return _with_options("config", own, build)


def _with_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """What completes the settings of a finetuning; only a recipe needs torch."""
    if settings.get("recipe") != "auto":
        return settings
    from mmd_ddm.jobs.recipe import complete

    return complete(settings)


def chain_options(settings: str) -> Callable[..., Any]:
    """A verb that takes as ``given`` a mapping of settings of the chain that were given."""
    kind, names = config.ChainConfig, settings.split()

    def build(given: dict[str, Any]) -> dict[str, Any]:
        return _given(kind, names, given)

    return _with_options("given", [_option(kind, name) for name in names], build)


def reading_options(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that takes as ``read`` how images are read."""
    kind, names = config.ReadConfig, READING.split()

    def build(given: dict[str, Any]) -> config.ReadConfig:
        return kind(**_given(kind, names, given))

    return _with_options("read", [_option(kind, name) for name in names], build)(verb)


def _with_options(
    name: str, options: list[Parameter], build: Callable[[dict[str, Any]], Any]
) -> Callable[..., Any]:
    """Give a verb these options, and what is built from them as the argument of that name."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        others = dict(inspect.signature(verb).parameters)
        del others[name]
        merged = [*options, *(p.replace(kind=Parameter.KEYWORD_ONLY) for p in others.values())]

        @wraps(verb)
        def run(**given: Any) -> None:
            own = {p.name: given.pop(p.name) for p in options}
            verb(**{name: build(own)}, **given)

        run.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in merged}
        return run

    return decorate


def _option(kind: type, name: str) -> Parameter:
    """A setting as typer's parameter; None is what nobody gave."""
    hint, default = _field(kind, name)
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


def _field(kind: type, name: str) -> tuple[Any, Any]:
    """Type and default of a setting."""
    outer, dot, rest = name.partition(".")
    (found,) = (f for f in dataclasses.fields(kind) if f.name == outer)
    inner = typing.cast(type, found.type)
    if isinstance(inner, types.UnionType):  # T | None, as is every option
        inner = typing.get_args(inner)[0]
    return _field(inner, rest) if dot else (inner, found.default)


def _given(kind: type, names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, lists of numbers parsed."""
    found = {name: options[_parameter(name)] for name in names}
    asked = {
        name: numbers(value) if _field(kind, name)[0] == tuple[float, ...] else value
        for name, value in found.items()
        if value not in (None, [])
    }
    if "budgets" in asked:
        budgets = whole_numbers(str(asked["budgets"])) or whole_numbers("none")
        asked |= {"budgets": budgets, "chain.steps": max(budgets)}
    return asked


@cache
def comments(kind: type) -> dict[str, str]:
    """The comment behind every field of a config, by its dotted name."""
    text = "".join(_sources().get(one.__name__, "") for one in kind.__mro__)
    found = dict(re.findall(r"^    (\w+): .*?  # (.+)$", text, re.MULTILINE))
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            inner = comments(typing.cast(type, field.type))
            found |= {f"{field.name}.{key}": text for key, text in inner.items()}
    return found


@cache
def _sources() -> dict[str, str]:
    """Of every class of the settings; `inspect.getsource` would parse the file for each."""
    text = "".join(Path(str(one.__file__)).read_text("utf-8") for one in (config, methods))
    classes = re.split(r"^class (\w+)", text, flags=re.MULTILINE)[1:]
    return dict(zip(classes[::2], classes[1::2], strict=True))


def read_integers(verb: Callable[..., None]) -> Callable[..., None]:
    """Let whole numbers be written as 1e3, too; not those with bounds, which are few."""
    for one in inspect.signature(verb).parameters.values():
        hint, about = (*typing.get_args(one.annotation), None)[:2]
        if hint in (int, int | None, list[int] | None) and getattr(about, "min", 0) is None:
            about.parser = _integer
    return verb


def _integer(text: Any) -> int:
    if isinstance(found := whole(text), int):
        return found
    raise typer.BadParameter(f"{text!r} is not a valid integer.")
