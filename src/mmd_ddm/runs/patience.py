"""Who waits for other processes for more than moments says so. No torch here."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["waiting"]

_SOON = 15.0  # seconds, within which nobody wonders


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Within, ``what`` is said if it takes long."""
    late = threading.Timer(_SOON, print, [f"mmd-ddm: {what}"], {"file": sys.stderr})
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
