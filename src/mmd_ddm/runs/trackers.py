"""Training curves to TensorBoard, W&B and whatever else Accelerate can write to.

`log.jsonl` of the run is complete without them; trackers show the same numbers while they come.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmd_ddm.runs.launch import is_first

__all__ = ["check_trackers", "tracked"]

_PROJECT = "mmd-ddm"


def check_trackers(names: Sequence[str]) -> None:
    """Asked before anything slow.

    Raises:
        ValueError: a tracker that Accelerate does not know, or whose package is not installed.
    """
    from accelerate import tracking

    for name in names:
        if name not in tracking.LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(map(str, tracking.LOGGER_TYPE_TO_CLASS)))
            raise ValueError(f"unknown tracker {name!r}; choose one of none, {known}")
        if name not in map(str, tracking.get_available_trackers()):
            raise ValueError(f"tracker {name} is not installed: pip install {name}")


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, settings: Mapping[str, Any]
) -> Iterator[Callable[..., None]]:
    """A function that takes the events of a training and sends their numbers to the trackers.

    Of several ranks the first alone does.

    Args:
        names: of trackers; files of the local ones lie in sub-folders of ``folder``.
        folder: of the run.
        settings: shown beside the curves.
    """
    trackers: list[Any] = []
    wanted = bool(names) and is_first()

    def start() -> None:
        from accelerate import Accelerator

        accelerator = Accelerator(log_with=list(names), project_dir=folder / "trackers")
        plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()}
        try:
            accelerator.init_trackers(_PROJECT, config=plain)
        except Exception as error:  # no login, no network: each has its own
            said = " ".join(str(error).split())
            raise ValueError(
                f"tracker {', '.join(names)} cannot begin: {said}; repeat the command with "
                "--tracker none, or another"
            ) from error
        trackers.extend(accelerator.trackers)

    def follow(**event: Any) -> None:
        if wanted and not trackers:
            start()
        skipped = ("step", "seconds")
        values = {
            f"{event['event']}/{key}": value
            for key, value in event.items()
            if isinstance(value, int | float) and key not in skipped
        }
        for tracker in trackers if values else ():
            tracker.log(values, step=event["step"])

    try:
        yield follow
    finally:
        # Not Accelerate's end_training: it would end the processes' group as well.
        for tracker in trackers:
            tracker.finish()
