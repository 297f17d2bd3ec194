"""What the verbs print with: one console, one look of progress bars, one way to read settings."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mmd_ddm import config
from mmd_ddm.launch import is_first

if TYPE_CHECKING:
    from mmd_ddm.data import ImageSet

__all__ = [
    "ForceOption",
    "TrackerOption",
    "chosen_trackers",
    "console",
    "progress_bar",
    "say_skipped",
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
# Names of files and models are shown as they are, not read as markup.
console = Console(highlight=False, markup=False, quiet=not is_first())


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar; the yielded function takes ``done=`` or ``advance=`` and a ``note=``."""
    columns = (
        # All of it and a note of 20 letters fit a terminal of 80.
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, note="")

        def update(*, done: int | None = None, advance: int | None = None, note: str = "") -> None:
            progress.update(task, completed=done, advance=advance, note=note)

        yield update


def say_skipped(*sources: "ImageSet") -> None:
    """Name the files that were taken for no images."""
    for source in sources:
        if source.skipped:
            names = ", ".join(source.skipped[:5]) + ", ..." * (len(source.skipped) > 5)
            console.print(f"skipped {len(source.skipped):,} files of {source.source}: {names}")


def chosen_trackers(names: list[str] | None) -> tuple[str, ...]:
    """What ``--tracker`` asks for.

    Raises:
        ValueError: no such tracker, or one that is not installed.
    """
    from mmd_ddm.tracking import check_trackers

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
