"""What the verbs print with, and send curves to."""

from mmd_ddm.runs.bars import bars

__all__ = ["bars", "chosen_trackers", "console"]

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
