"""Settings from outside: TOML in, overrides on top, checked against frozen dataclasses.

    config = load(FinetuneConfig, Path("my.toml"), ["chain.steps=10", "lr=1e-5"])

An unknown key is an error that names the nearest one. No torch here.
"""

import ast
import dataclasses
import difflib
import importlib.util
import math
import re
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "at_least", "comments", "field_of", "from_mapping", "load", "names_in", "numbers", "override",
    "to_mapping", "whole", "whole_numbers", "with_most_steps", "words",
]  # fmt: skip

T = TypeVar("T")
_MOST = 1000  # numbers of steps in a range: as many as models have times


def load(
    kind: type[T],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> T:
    """Defaults, then a TOML file, then ``a.b=c`` overrides, then values by their dotted names.

    Args:
        kind: the dataclass.
        path: of the TOML file.
        overrides: texts.
        given: by dotted names.
        complete: says more settings, by those that there are.

    Raises:
        ValueError: an unreadable file, an unknown key, a value of the wrong type.
    """
    mapping: dict[str, Any] = {}
    if path is not None:
        try:
            mapping = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"cannot read the config {path}: {error}") from error
        _refuse_code(mapping, path)
    override(mapping, overrides)
    for key, value in (given or {}).items():
        _assign(mapping, key.split("."), value)
    mapping = with_most_steps(mapping)
    return from_mapping(kind, complete(mapping) if complete else mapping)


def with_most_steps(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings; where only ``budgets`` say how many steps, the most are chain.steps."""
    budgets, chain = mapping.get("budgets"), mapping.get("chain", {})
    listed = isinstance(budgets, list | tuple) and all(isinstance(k, int) for k in budgets)
    if not listed or not budgets or not isinstance(chain, Mapping) or "steps" in chain:
        return dict(mapping)
    return {**mapping, "chain": {**chain, "steps": max(budgets)}}


def override(mapping: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put ``a.b=c`` settings into nested mappings.

    Raises:
        ValueError: no ``=``, or a setting below one that is no table.
    """
    for setting in overrides:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"an override is written key=value; got {setting!r}")
        _assign(mapping, key.strip().split("."), _parse(text.strip()))


def from_mapping(kind: type[T], mapping: Any, prefix: str = "") -> T:
    """Build a config from nested mappings, checking keys and types.

    Raises:
        ValueError: no mapping, an unknown key, a value of the wrong type.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"{prefix.rstrip('.') or 'a config'} is a table of settings; got {mapping!r}"
        )
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(fields)}"
            raise ValueError(f"unknown setting {prefix}{key}; {hint}")
        values[key] = _convert(value, hints[key], prefix + key)
    return kind(**values)


def to_mapping(config: Any) -> dict[str, Any]:
    """The resolved settings as plain JSON and TOML values."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


@cache
def comments(kind: type) -> dict[str, str]:
    """The comment behind every field of a config, by its dotted name: the help of its option."""
    text = "".join(_sources(one.__module__).get(one.__name__, "") for one in kind.__mro__[:-1])
    found = dict(re.findall(r"^    (\w+): .*?  # (.+)$", text, re.MULTILINE))
    for field in dataclasses.fields(typing.cast(Any, kind)):
        if dataclasses.is_dataclass(field.type):
            inner = comments(typing.cast(type, field.type))
            found |= {f"{field.name}.{key}": text for key, text in inner.items()}
    return found


def field_of(kind: type, name: str) -> tuple[Any, Any]:
    """Type and default of a setting, by its dotted name; of ``T | None`` the type is T."""
    outer, dot, rest = name.partition(".")
    (found,) = (f for f in dataclasses.fields(typing.cast(Any, kind)) if f.name == outer)
    inner = typing.cast(type, found.type)
    if isinstance(inner, types.UnionType):
        inner = typing.get_args(inner)[0]
    return field_of(inner, rest) if dot else (inner, found.default)


@cache
def _sources(module: str) -> dict[str, str]:
    """Of every class of a module; `inspect.getsource` would parse the file for each."""
    text = Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8")
    classes = re.split(r"^class (\w+)", text, flags=re.MULTILINE)[1:]
    return dict(zip(classes[::2], classes[1::2], strict=True))


@cache
def names_in(module: str, registry: str) -> tuple[str, ...]:
    """The keys of a dictionary in a module, read from its source: importing may take torch."""
    source = getattr(importlib.util.find_spec(module), "origin", None) or ""
    for one in ast.parse(Path(source).read_text(encoding="utf-8")).body:
        if isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(one.value, ast.Dict):
            (target, *_) = one.targets if isinstance(one, ast.Assign) else [one.target]
            if isinstance(target, ast.Name) and target.id == registry:
                return tuple(ast.literal_eval(key) for key in one.value.keys if key)
    raise AssertionError(f"{module} has no dictionary {registry}")


def _refuse_code(value: Any, path: Path) -> None:
    """A file may be anybody's: what it names must not be called."""
    if isinstance(value, str) and value.startswith("import:"):
        raise ValueError(
            f"{path} names {value}, code that would be called: only the command line may, "
            f"with --features or --set"
        )
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_code(part, path)


def _assign(mapping: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        mapping = mapping.setdefault(key, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"{'.'.join(keys)}: {key} is not a table")
    mapping[keys[-1]] = value


def _parse(text: str) -> Any:
    """A TOML value; a bare word is a string, words with commas, or in brackets, are a list."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        inner = text[1:-1] if text[:1] + text[-1:] == "[]" else text
        if inner is text and "," not in text:
            return text
        return [_parse(part.strip()) for part in inner.split(",")]


def whole(value: Any) -> Any:
    """The whole number that is meant by 1000, 1e3, "1e3"; what is none stays as it is."""
    if isinstance(value, str | float):
        with suppress(ValueError, OverflowError):
            number = float(value)
            if number == int(number):  # which text may say with more digits
                return int(value) if str(value).isdecimal() else int(number)
    return value


def numbers(text: str) -> tuple[float, ...]:
    """``999,640.5,320,80`` as numbers; anything else is a ValueError."""
    try:
        return tuple(float(t) for t in text.strip(" []").split(","))
    except ValueError as error:
        raise ValueError(
            f"times are numbers with commas between, as 999,640,320,80; got {text!r}"
        ) from error


def words(text: str) -> list[str]:
    """Words with commas between, each once."""
    return [*dict.fromkeys(filter(None, map(str.strip, text.strip(" []").split(","))))]


def whole_numbers(text: str, option: str = "--steps") -> list[int]:
    """``5,10`` or ``1-20`` as whole numbers, each once; anything else is a ValueError."""
    found: dict[int, None] = {}
    for word in words(text):
        first, dash, last = (whole(part) for part in word.partition("-"))
        number, ends = whole(word), (first, last)
        if isinstance(number, int):
            found[number] = None
        elif dash and all(isinstance(end, int) for end in ends) and 0 <= last - first < _MOST:
            found |= dict.fromkeys(range(first, last + 1))
        else:
            raise ValueError(f"{option} takes whole numbers, 5,10,15,20 or 1-20; got {word!r}")
    return [*found]


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _convert(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, f"{name}.")
    if isinstance(hint, types.UnionType):  # T | None
        nothing = value is None or _lower(value) in ("none", "null")
        return None if nothing else _convert(value, typing.get_args(hint)[0], name)
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(item, element, name) for item in items)
    if hint is bool:
        value = {"true": True, "false": False}.get(_lower(value), value)
    if hint is int:
        value = whole(value)
    if hint is float and isinstance(value, str):
        with suppress(ValueError):  # .0001 is no number of TOML
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite; got {value}")
    if type(value) is not hint:
        raise ValueError(f"{name} takes {hint.__name__}; got {value!r}")
    return value


def at_least(config: Any, prefix: str = "", **limits: float) -> None:
    """Whether settings have their least values.

    Args:
        config: that has them.
        prefix: of their names, in the error.
        limits: the least value of each.

    Raises:
        ValueError: one that is less.
    """
    for name, least in limits.items():
        value = getattr(config, name)
        if not value >= least:
            raise ValueError(f"{prefix}{name} must be at least {least}; got {value:g}")
