"""Generated cases, the same in every run, and what is asked of a refusal."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["PLACES", "attempt", "many", "spoilt"]

PLACES = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)


def many(examples: int) -> settings:
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def attempt(call: Callable[[], Any], said: str = "") -> Any:
    """The answer; None if refused by a ValueError that names what it is about."""
    try:
        return call()
    except ValueError as error:
        message = str(error)
    assert message
    if said:
        assert said in message
        assert "\n" not in message
    assert "object at 0x" not in message
    return None


def spoilt(content: bytes, changes: Sequence[tuple[int, int]], cut: int) -> bytes:
    """Some bytes changed, and so many cut off."""
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed[: len(changed) - cut % len(changed)])
