"""What others published: one data file with its sources, and its reader.

``published.toml`` holds every figure of the paper's Tables I to IX and of later methods as their
authors printed it. Nothing in it was measured here, and a table that shows one says so.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Figure", "published", "published_figures"]

_MISSING = "-"


@dataclass(frozen=True)
class Figure:
    """One printed number.

    Attributes:
        source: the publication, in full.
        table: the paper's table, ``I`` to ``IX``; empty for other publications.
        dataset: as the source names it.
        metric: FID, FID_CLIP, IS ...
        method: the row.
        steps: of the chain in the paper's tables, network calls elsewhere.
        value: as printed.
    """

    source: str
    table: str
    dataset: str
    metric: str
    method: str
    steps: int
    value: float


@cache
def published_figures() -> tuple[Figure, ...]:
    """Every figure of the data file, in its order."""
    text = (Path(__file__).with_name("published.toml")).read_text(encoding="utf-8")
    return tuple(_read(tomllib.loads(text)))


def published(table: str, dataset: str, metric: str, method: str, steps: int) -> float | None:
    """The number that one of the paper's tables prints; None where it prints none.

    The arguments are those of `Figure`.
    """
    wanted = (table, dataset, metric, method, steps)
    for found in published_figures():
        if (found.table, found.dataset, found.metric, found.method, found.steps) == wanted:
            return found.value
    return None


def _read(content: dict) -> Iterator[Figure]:
    for block in content["tables"]:
        source = content["sources"][block["source"]]
        for method, values in block["rows"].items():
            for steps, value in zip(block["steps"], values, strict=True):
                if value != _MISSING:
                    yield Figure(
                        source, block.get("table", ""), block["dataset"], block["metric"],
                        method, steps, float(value),
                    )  # fmt: skip
