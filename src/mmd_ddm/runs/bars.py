"""Progress as bars in a terminal or a notebook."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mmd_ddm.runs.launch import is_first
from mmd_ddm.runs.progress import Update

__all__ = ["Bars", "bars", "replace_unprintable"]


def replace_unprintable() -> None:
    """What a terminal, a pipe or a file cannot hold is printed as ``?``, and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # neither captured nor closed
            stream.reconfigure(errors="replace")


class Bars:
    """A `mmd_ddm.runs.progress.Progress` that prints; of several ranks the first alone does.

    Attributes:
        console: where. Names of files and models are shown as they are, not read as markup.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, quiet=not is_first())

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Update]:
        """A bar; all of it and a note of 20 letters fit a terminal of 80 columns."""
        columns = (
            TextColumn("{task.description:<20}", markup=False),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, note="")

            def update(
                *, done: int | None = None, advance: int | None = None, note: str = ""
            ) -> None:
                progress.update(task, completed=done, advance=advance, note=note)

            yield update


bars = Bars()
