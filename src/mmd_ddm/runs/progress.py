"""How a long job tells what it does, without knowing to whom: a terminal, a notebook, nobody."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

__all__ = ["Progress", "Update", "silent"]

# Takes ``done=`` or ``advance=``, and a ``note=``.
Update = Callable[..., None]


@runtime_checkable  # the test run checks arguments
class Progress(Protocol):
    """What every job is given as ``progress=``."""

    def say(self, text: str) -> None:
        """One line for the person who waits."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Update]:
        """Within, the yielded function tells how far a part of the job is."""


class _Silent:
    """Nobody listens."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Update]:
        """Nothing."""
        yield lambda **_: None


silent: Progress = _Silent()
