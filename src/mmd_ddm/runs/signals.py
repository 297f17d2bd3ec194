"""Ctrl-C and SIGTERM, held back until it is safe to stop.

SIGTERM is what a cluster sends before it takes the machine away; it is treated as Ctrl-C.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mmd_ddm.runs.launch import is_first

__all__ = ["held_signals", "sigterm_as_interrupt"]

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def held_signals() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM only makes the yielded function answer True.

    The second one interrupts at once. In a thread that gets no signals nothing is held.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if is_first():
            print("mmd-ddm: stopping after this iteration; again to stop at once", file=sys.stderr)

    with _handled(note, signal.SIGINT, signal.SIGTERM):
        yield lambda: asked


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within, SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old or signal.SIG_DFL)
