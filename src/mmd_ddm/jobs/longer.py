"""A run that is given more iterations goes on from its checkpoint, and says what that is not."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmd_ddm.runs.folder import RunLog
from mmd_ddm.runs.progress import Progress

__all__ = ["longer_record", "note_longer"]


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
