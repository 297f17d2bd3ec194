"""Presets and experiments, read from the TOML files that come with the package."""

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmd_ddm.settings import from_mapping

__all__ = [
    "Experiment",
    "Preset",
    "Row",
    "choose",
    "load_experiment",
    "load_preset",
    "preset_names",
]

_FOLDER = Path(__file__).parents[1] / "presets"
# In this order they are made: what says most comes first.
_ORDER = [f"table-{i}" for i in (1, 5, 6, 7, 8, 9)] + [f"figure-{i}" for i in (1, 3, 8, 9, 10, 4)]
_ORDER += [f"table-{i}" for i in (2, 3, 4)] + [f"figure-{i}" for i in (2, 5, 6, 7)]


@dataclass(frozen=True)
class Row:
    """One row of a table, or one panel of a figure.

    Attributes:
        sampler: a name of `mmd_ddm.samplers.registry.SAMPLERS`.
        spacing: ``linear`` or ``quadratic``; the experiment says which rule that is.
        clip: clamp predictions of x_0.
        match: the space that is matched, ``inception`` or ``clip``; empty is the base.
        kernel: of the MMD.
    """

    sampler: str = "ddim"
    spacing: str = "linear"
    clip: bool = False
    match: str = ""
    kernel: str = "cubic"


@dataclass(frozen=True)
class Preset:
    """One table or figure of the paper.

    Attributes:
        name: ``table-1`` ... ``figure-10``.
        title: for people.
        parts: the experiments it is made for.
        steps: the numbers K.
        kind: ``table``, ``samples``, ``neighbors`` or ``interpolation``.
        table: under which its published figures are kept; empty for figures.
        metrics: as the paper names them.
        improvement: two rows between which the change is stated.
        rows: by the paper's names.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    steps: tuple[int, ...]
    kind: str = "table"
    table: str = ""
    metrics: tuple[str, ...] = ("FID",)
    improvement: tuple[str, ...] = ()
    rows: dict[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """What the words of a preset mean for one data set.

    Attributes:
        title: the data set, as the published figures name it.
        real: what the numbers compare with, ``matched`` or ``heldout`` images.
        spaces: the feature space that stands for ``inception`` and for ``clip``.
        spacings: the rule that is meant by ``linear`` and by ``quadratic``.
        finetune: settings of `FinetuneConfig`.
        by_steps: settings for some K, over those.
        hidden: what the released code does, and ours: a setting, or words.
        seconds: what ``train`` and ``draw`` take an image and step, and ``judge`` a row; for the
            estimate of the time, where it was measured.
    """

    title: str
    real: str
    spaces: dict[str, str]
    spacings: dict[str, str]
    finetune: dict[str, Any]
    hidden: dict[str, list[str]]
    by_steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def preset_names() -> list[str]:
    """All presets, in the order in which ``all`` makes them."""
    return list(_ORDER)


def choose(names: Sequence[str]) -> list[Preset]:
    """The presets of these names, in their order; ``all`` is every one.

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name != "all" and name not in _ORDER:
            near = difflib.get_close_matches(name, _ORDER, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose all, or of {', '.join(_ORDER)}"
            raise ValueError(f"unknown preset {name!r}; {hint}")
    return [load_preset(name) for name in _ORDER if name in names or "all" in names]


def load_preset(name: str) -> Preset:
    """The preset of that name."""
    content = _read("paper", name)
    rows = {label: from_mapping(Row, row) for label, row in content.pop("rows").items()}
    return replace(from_mapping(Preset, {"name": name, **content}), rows=rows)


def load_experiment(name: str) -> Experiment:
    """The experiment of that name."""
    return Experiment(**_read("experiments", name))


def _read(kind: str, name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / kind / f"{name}.toml").read_text(encoding="utf-8"))
