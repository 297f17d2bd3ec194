"""What the verbs print with: one console, one look of progress bars, one way to read settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from mmd_ddm import config
from mmd_ddm.runs.bars import bars

__all__ = [
    "ForceOption",
    "TrackerOption",
    "bars",
    "chosen_trackers",
    "console",
    "settings",
]

T = TypeVar("T")
ForceOption = Annotated[
    bool, typer.Option("--force-new-run", help="If OUT holds another run: use OUT-2, OUT-3 ...")
]
TrackerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tracker", help="tensorboard (default, OUT/trackers), wandb, ... or none; repeatable."
    ),
]
console = bars.console


def chosen_trackers(names: list[str] | None) -> tuple[str, ...]:
    """What ``--tracker`` asks for.

    Raises:
        ValueError: no such tracker, or one that is not installed.
    """
    from mmd_ddm.runs.trackers import check_trackers

    chosen = tuple(dict.fromkeys(names or ["tensorboard"]))
    if chosen == ("none",):
        return ()
    check_trackers(chosen)
    return chosen


def settings(
    kind: type[T],
    config_file: Path | None,
    overrides: list[str] | None,
    given: Mapping[str, Any],
) -> T:
    """Defaults, then the TOML file, then ``--set``, then the options that were given."""
    own = [f"{key}={_toml(value)}" for key, value in given.items() if value is not None]
    return config.load(kind, config_file, [*(overrides or []), *own])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # JSON's escapes are TOML's as well.
    quoted = json.dumps(str(value), ensure_ascii=False)
    return str(value) if isinstance(value, int | float) else quoted
