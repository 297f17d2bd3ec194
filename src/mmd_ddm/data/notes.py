"""What a person is told of a source that was read: what was taken, and what was not."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

__all__ = ["Notes", "counted", "listed", "printable"]


@dataclass
class Notes:
    """Filled while a source is read.

    Attributes:
        taken: which part of what there is, as ``column image of 2 tables``.
        skipped: names of files that are no pictures.
        of_runs: names of pictures that lie in runs of ours.
        damaged: names of pictures that cannot be read.
        enlarged: (height, width) of pictures that were smaller than they are now.
        classes: names, where a table says what its labels mean.
    """

    taken: str = ""
    skipped: list[str] = field(default_factory=list)
    of_runs: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    enlarged: list[tuple[int, int]] = field(default_factory=list)
    classes: tuple[str, ...] = ()

    @property
    def instead(self) -> str:
        """What was found where there are no images."""
        found = [
            f"{len(self.damaged):,} that cannot be read" * bool(self.damaged),
            f"{len(self.of_runs):,} in runs of mmd-ddm, to be given one by one"
            * bool(self.of_runs),
            _endings(self.skipped),
        ]
        return f"; found {', '.join(filter(None, found))}" * any(found)

    def lines(self, source: str, n: int) -> tuple[str, ...]:
        """In words, of a source that gave n images."""
        skipped, damaged = len(self.skipped), len(self.damaged)
        told = [f"read {counted(n, 'image')} of {source}: {self.taken}"]
        if self.skipped:
            told.append(
                f"skipped {counted(skipped, 'file')} of {source}: {_endings(self.skipped)} "
                f"({listed(self.skipped, 5)})"
            )
        if self.of_runs:
            told.append(
                f"left out {counted(len(self.of_runs), 'picture')} of runs of mmd-ddm within "
                f"{source}: {listed(self.of_runs, 5)}"
            )
        if self.damaged:
            told.append(
                f"left out {counted(damaged, 'picture')} of {source} that cannot be read, of "
                f"{n + damaged:,}: {listed(self.damaged, 10)}"
            )
        if self.enlarged:
            height, width = min(self.enlarged, key=lambda size: size[0] * size[1])
            told.append(
                f"enlarged {len(self.enlarged):,} of the {n:,} images of {source}, the smallest "
                f"from {width}x{height}"
            )
        return tuple(map(printable, told))


def printable(line: str) -> str:
    """Without what moves a terminal's cursor: a name may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in line)


def listed(names: Sequence[str], most: int) -> str:
    """These names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def counted(n: int, noun: str) -> str:
    """So many: ``1 picture``, ``2 pictures``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _endings(names: Iterable[str]) -> str:
    """How many files of which kind these are: ``12 .heic, 3 .txt``."""
    found = Counter(PurePosixPath(name).suffix.lower() or "without ending" for name in names)
    return listed([f"{count:,} {ending}" for ending, count in found.most_common()], 6)
