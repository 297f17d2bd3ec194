"""Progress as bars in a terminal or a notebook, as a line now and then in a file.

A file is what SLURM and nohup give, and what a person looks into to see how far a job is.
"""

import io
import sys
import time
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

_EVERY = 5.0  # seconds between two lines of a bar


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
        if not (self.console.is_terminal or self.console.is_jupyter):
            with self._lines(title, total) as tell:
                yield tell
            return
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

    @contextmanager
    def _lines(self, title: str, total: int) -> Iterator[Update]:
        """The same as lines: one every few seconds, and one of the end."""
        began = told = time.monotonic()
        first: int | None = None  # of a run that is resumed, what was done before
        at, said, shown = 0, "", (-1, "")

        def line() -> None:
            nonlocal told, shown
            told, shown = time.monotonic(), (at, said)
            done = at - (first or 0)
            left = (told - began) / done * (total - at) if done > 0 else None
            ends = f" < {_clock(left)}" if left is not None and at < total else ""
            words = f"{title:<20} {at}/{total} {_clock(told - began)}{ends} {said}"
            self.console.print(words.rstrip(), soft_wrap=True)

        def update(*, done: int | None = None, advance: int | None = None, note: str = "") -> None:
            nonlocal at, first, said
            if first is None and done is not None:
                first = max(done - 1, 0)
            at, said = at + (advance or 0) if done is None else done, note
            if time.monotonic() - told >= _EVERY:
                line()

        yield update
        if shown != (at, said):
            line()


def _clock(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


bars = Bars()
