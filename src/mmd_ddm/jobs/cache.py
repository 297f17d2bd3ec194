"""What is remembered on this machine, and making it smaller: what ``mmd-ddm cache`` runs."""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from mmd_ddm.runs.cache_folder import GIB, Entry, cache_dir, cache_limit, entries, prune
from mmd_ddm.runs.files import size_text

__all__ = ["Cache", "Kind", "tidy"]


@dataclass(frozen=True)
class Kind:
    """The entries of one kind.

    Attributes:
        name: samples, scores, features, images ...
        count: of entries.
        size: in bytes.
        oldest: when the one that was used the longest ago was used, in seconds since 1970.
        newest: when the last one was.
    """

    name: str
    count: int
    size: int
    oldest: float
    newest: float

    def cells(self) -> list[str]:
        """Of a line of a table: name, count, size, and both times."""
        used = (datetime.fromtimestamp(time) for time in (self.oldest, self.newest))
        days = (f"{time:%Y-%m-%d %H:%M}" for time in used)
        return [self.name, f"{self.count:,}", size_text(self.size), *days]


@dataclass(frozen=True)
class Cache:
    """What is remembered.

    Attributes:
        folder: where.
        limit: bytes over which the least recently used goes by itself; may be infinite.
        kinds: the largest first.
        removed: entries that have just been removed.
        freed: their size in bytes.
    """

    folder: Path
    limit: float
    kinds: tuple[Kind, ...]
    removed: int
    freed: int


def tidy(most: float | None = None) -> Cache:
    """Remove what was used least recently, if asked to, and say what there is.

    Args:
        most: GiB that may stay, 0 for nothing at all; None removes nothing.

    Raises:
        ValueError: less than nothing.
    """
    if most is not None and not most >= 0:
        raise ValueError(f"cannot prune to {most:g} GiB; give 0, which clears all, or more")
    removed = [] if most is None else prune(most * GIB)
    found = sorted(entries(), key=_kind)
    kinds = [_sum(name, list(group)) for name, group in groupby(found, key=_kind)]
    return Cache(
        cache_dir(),
        cache_limit(),
        tuple(sorted(kinds, key=lambda kind: -kind.size)),
        len(removed),
        sum(entry.size for entry in removed),
    )


def _kind(entry: Entry) -> str:
    return entry.path.parent.name


def _sum(name: str, of: list[Entry]) -> Kind:
    """Of entries in the order of their use, which sorting by kind has left as it was."""
    return Kind(name, len(of), sum(entry.size for entry in of), of[0].used, of[-1].used)
