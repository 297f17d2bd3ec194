"""A table of the paper: our cells, and the published figures beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mmd_ddm.evaluation.scores import (
    Score,
    format_number,
    format_percent,
    format_score,
    metric_name,
    score,
)
from mmd_ddm.paper.cells import Cell, Choice, Key, spatial, with_classes
from mmd_ddm.paper.presets import Preset, load_experiment, preset_names
from mmd_ddm.paper.published import published, published_figures
from mmd_ddm.report.tables import Strong, Table, code_span, csv_text, escape
from mmd_ddm.runs.files import write_text

__all__ = ["Layout", "write_figure_text", "write_index", "write_table"]

_DASH = "\N{EN DASH}"
_REAL = {"matched": "matched", "heldout": "held-out"}
_SPATIAL, _CLASSES = -1, -2
# The paper's metrics: which of a cell's spaces, and what is measured in it.
_METRICS = {
    "FID": (0, "fd"), "FID_CLIP": (1, "fd"), "IS": (_CLASSES, "is"), "sFID": (_SPATIAL, "fd"),
    "Precision": (0, "precision"), "Recall": (0, "recall"),
}  # fmt: skip
_NUMBERS = (
    "data", "space", "metric", "row", "steps", "ours", "se", "published", "published for",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A preset with its cells, and the records of those that are finished, by cell name."""

    preset: Preset
    choice: Choice
    cells: Mapping[Key, Cell]
    records: Mapping[str, Mapping[str, Any]]

    @property
    def steps(self) -> list[int]:
        """The numbers K."""
        return sorted({k for _, _, k, _ in self.cells})

    @property
    def parts(self) -> list[str]:
        """The experiments."""
        return list(dict.fromkeys(part for part, *_ in self.cells))

    def of(self, part: str) -> list[Cell]:
        """The cells of one experiment, each once."""
        found = {cell.name: cell for (where, *_), cell in self.cells.items() if where == part}
        return list(found.values())


def write_table(layout: Layout, folder: Path) -> None:
    """Write ``NAME.md``, ``NAME.tex`` and ``NAME.csv``."""
    text, tables = [f"## {escape(layout.preset.title)}"], []
    numbers: list[list[object]] = []
    for part in layout.parts:
        for block in _blocks(layout, part):
            tables.append(block.table())
            text.append(tables[-1].markdown())
            numbers += block.numbers()
        text.append(_describe(layout, part))
    for ending, content in (
        ("md", "\n\n".join(text) + "\n"),
        ("tex", "\n".join(table.latex() for table in tables)),
        ("csv", csv_text(_NUMBERS, numbers)),
    ):
        write_text(folder / f"{layout.preset.name}.{ending}", content)


def write_figure_text(layout: Layout, caption: str, folder: Path) -> None:
    """Write ``NAME.md``, which shows ``NAME.png``."""
    name, title = layout.preset.name, escape(layout.preset.title)
    parts = [f"## {title}", f"![{title}]({name}.png)", caption]
    parts += [_describe(layout, part) for part in layout.parts]
    write_text(folder / f"{name}.md", "\n\n".join(parts) + "\n")


def write_index(folder: Path) -> None:
    """Write ``results.md``: every table and figure that lies there, in their order."""
    texts = [folder / f"{name}.md" for name in preset_names()]
    found = [path.read_text(encoding="utf-8") for path in texts if path.is_file()]
    write_text(folder / "results.md", "\n".join(found))


def _describe(layout: Layout, part: str) -> str:
    """What the cells of an experiment were made with, in a paragraph."""
    cells = layout.of(part)
    one, trained = cells[0], [cell.config for cell in cells if cell.trained]
    unseen = ", ".join(code_span(space) for space in one.spaces[2:])
    model, data, *matched = map(code_span, (one.config.model, one.config.data, *one.spaces[:2]))
    text = (
        f"{one.config.judge_samples:,} samples of {model} a cell against the "
        f"{_REAL[one.real]} images of {data}; {matched[0]} stands for "
        f"Inception, {matched[1]} for CLIP; {unseen} is never optimised."
    )
    budgets = {c.chain.steps: f"{c.iterations} x {c.batch_size}" for c in trained}
    if trained:
        said = ", ".join(f"{budget} at K = {k}" for k, budget in sorted(budgets.items()))
        text += f" Iterations x batch: {said}."
    if layout.choice.seeds > 1:
        text += f" Mean of {layout.choice.seeds} seeds and its standard error."
    return text


def _blocks(layout: Layout, part: str) -> Iterator["_Block"]:
    """The paper's metrics, then KID in every space."""
    for name in layout.preset.metrics:
        yield _Block(layout, part, name, *_METRICS[name])
    for place in range(len(layout.of(part)[0].spaces)):
        if place != 1 or "FID_CLIP" in layout.preset.metrics:
            yield _Block(layout, part, "", place, "kid")


@dataclass(frozen=True)
class _Block:
    """One metric in one space of an experiment: a row a method, a column a number of steps."""

    layout: Layout
    part: str
    name: str  # as the paper calls it; empty if it does not, and nothing published stands beside
    place: int  # of the space among those of a cell
    metric: str

    def table(self) -> Table:
        """With the floor, and the improvement where the preset asks for it."""
        preset, first = self.layout.preset, self.layout.of(self.part)[0]
        columns = list(product(self.layout.steps, ["", *self._beside()]))
        what = f"{metric_name(self.metric)} in {self._space(first)}"
        titles = [
            f"published ({self.name}, {data})" if data else f"{k} steps" for k, data in columns
        ]
        methods = [
            [
                Strong(label) if label in preset.rows and preset.rows[label].match else label,
                *(self._text(self._found(label, k, data), data) for k, data in columns),
            ]
            for label in dict.fromkeys([*preset.rows, *self._published_rows()])
        ]
        floor = self._text(self._floor())
        last = [["real images", *(_DASH if data else floor for _, data in columns)]]
        if preset.improvement:
            pairs = [[self._found(x, k, data) for x in preset.improvement] for k, data in columns]
            last.append(["Improvement", *(_change(*pair) for pair in pairs)])
        groups = {"": methods, "real images": last}
        return Table([what, *titles], groups, caption=f"{preset.title}: {what}")

    def numbers(self) -> Iterator[list[object]]:
        """A line of `_NUMBERS` a row, a number of steps and a data set published for."""
        first, rows = self.layout.of(self.part)[0], self.layout.preset.rows
        about = [first.config.data, self._space(first), self.metric]
        for label, k, data in product(rows, self.layout.steps, self._beside() or [""]):
            ours, printed = self._found(label, k), self._found(label, k, data) if data else None
            yield [
                *about, label, k, ours and ours.value, ours and ours.se,
                printed and printed.value, printed and data,
            ]  # fmt: skip

    def _beside(self) -> list[str]:
        """The data sets whose published figures stand beside ours."""
        preset = self.layout.preset
        parts = preset.parts if self.layout.choice.one_model else (self.part,)
        return [load_experiment(part).title for part in parts] if self.name else []

    def _published_rows(self) -> list[str]:
        wanted = [(self.layout.preset.table, data, self.name) for data in self._beside()]
        every = published_figures()
        return [f.method for f in every if (f.table, f.dataset, f.metric) in wanted]

    def _found(self, label: str, k: int, data: str = "") -> Score | None:
        """What is published for that data set; without one ours, the mean over finished seeds."""
        if data:
            printed = published(self.layout.preset.table, data, self.name, label, k)
            return None if printed is None else Score(printed)
        scores = []
        for (*place, _), cell in self.layout.cells.items():
            if place == [self.part, label, k] and cell.name in self.layout.records:
                spaces = self.layout.records[cell.name]["row"]["spaces"]
                found = score(spaces.get(self._space(cell), {}), self.metric)
                scores += [found] if found else []
        return Score.over(scores) if scores else None

    def _floor(self) -> Score | None:
        """The same metric between two sets of real images."""
        for cell in self.layout.of(self.part):
            if cell.name in self.layout.records:
                about = self.layout.records[cell.name]["spaces"].get(self._space(cell))
                return score(about["floor"], self.metric) if about else None
        return None

    def _space(self, cell: Cell) -> str:
        named = {_SPATIAL: spatial, _CLASSES: with_classes}
        return named[self.place](cell) if self.place in named else cell.spaces[self.place]

    def _text(self, found: Score | None, data: str = "") -> str:
        if found and data:
            return f"{found.value:g}"
        if found and self.metric not in ("fd", "kid"):
            return format_number(found.value)
        return format_score(found, self.metric)


def _change(before: Score | None, after: Score | None) -> str:
    if before is None or after is None or before.value <= 0:
        return _DASH
    return format_percent(100 * (after.value - before.value) / before.value, signed=True)
