"""A run that is given more iterations goes on from its checkpoint, and says what that is not.

The checkpoint of a finished finetuning, five times its weights, goes unless it is to be kept: the
same command again then finds the model, and more iterations are refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmd_ddm.runs.files import read_json
from mmd_ddm.runs.folder import RunLog, read_events
from mmd_ddm.runs.progress import Progress

__all__ = [
    "check_longer", "drop_checkpoint", "finished_at", "longer_record", "note_longer",
]  # fmt: skip

_CHECKPOINTS = "checkpoint*.pt"


def finished_at(run: Path) -> int | None:
    """The iteration that a finished finetuning kept, if its model is all that is left of it."""
    if not (run / "model").is_dir() or any(run.glob(_CHECKPOINTS)):
        return None
    done = [event for event in read_events(run) if event.get("event") == "done"]
    return done[-1].get("kept") if done else None


def drop_checkpoint(run: Path) -> None:
    """Remove what nobody resumes from."""
    for path in run.glob(_CHECKPOINTS):
        path.unlink()


def check_longer(run: Path, iterations: int) -> None:
    """Whether there is something that this many iterations can go on from.

    Raises:
        ValueError: they are more than a finished run had, whose checkpoint is gone.
    """
    if finished_at(run) is None:
        return
    before = read_json(run / "run.json")["settings"]["iterations"]
    if iterations > before:
        raise ValueError(
            f"{run} is finished after {before:,} iterations, and its checkpoint is gone, which "
            f"{iterations:,} would go on from: give a new folder, and --keep-checkpoint if more "
            f"may follow; or finetune {run} itself, as MODEL"
        )


def note_longer(log: RunLog, iterations: int, progress: Progress, *, cosine: bool) -> None:
    """Say, and write into the log, that a run has become longer than it was.

    Args:
        log: of the run, open.
        iterations: as they are now.
        progress: told so.
        cosine: whether the learning rate follows a cosine over all iterations.
    """
    before = log.before.get("iterations", iterations)
    if before == iterations:
        return
    words = f"{iterations:,} iterations instead of {before:,}: goes on from the checkpoint"
    if cosine:
        words += (
            f"; the learning rate followed a cosine over {before:,} and goes on with that over "
            f"{iterations:,}, so the weights are not those of one run of {iterations:,}"
        )
    progress.say(words)
    log.write(event="longer", before=before, iterations=iterations, cosine=cosine)


def longer_record(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For the protocol in ``results.json``: after how many iterations a cosine was stretched."""
    stretched = [e["before"] for e in events if e.get("event") == "longer" and e["cosine"]]
    return {"cosine_stretched_from": stretched} if stretched else {}
