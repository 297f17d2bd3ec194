"""What the verbs print with, and send curves to."""

from mmd_ddm.runs.bars import bars

__all__ = ["bars", "chosen_trackers", "console"]

console = bars.console


def chosen_trackers(names: list[str] | None) -> tuple[str, ...]:
    """What ``--tracker`` asks for."""
    chosen = tuple(dict.fromkeys(names or ["tensorboard"]))
    return () if chosen == ("none",) else chosen
