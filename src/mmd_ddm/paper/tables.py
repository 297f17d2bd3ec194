"""A table of the paper as Markdown and CSV: our cells, and the published figures beside them."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmd_ddm.evaluation.scores import Score, format_number, format_percent, format_score, score
from mmd_ddm.paper.cells import Cell, Choice, Key, spatial, with_classes
from mmd_ddm.paper.presets import Preset, load_experiment, preset_names
from mmd_ddm.paper.published import published, published_figures
from mmd_ddm.report.markdown import escape, table

__all__ = ["Layout", "write_figure_text", "write_index", "write_table"]

_DASH = "\N{EN DASH}"
_REAL = {"matched": "matched", "heldout": "held-out"}
_SPATIAL, _CLASSES = -1, -2
# The paper's metrics: which of a cell's spaces, and what is measured in it.
_METRICS = {
    "FID": (0, "fd"), "FID_CLIP": (1, "fd"), "IS": (_CLASSES, "is"), "sFID": (_SPATIAL, "fd"),
    "Precision": (0, "precision"), "Recall": (0, "recall"),
}  # fmt: skip
_NAMES = {"fd": "FD", "kid": "KID x1000", "is": "IS"}


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

    def score(self, part: str, label: str, k: int, space: int, metric: str) -> Score | None:
        """Mean over the seeds that are finished; the standard error of that, or of the one."""
        found = []
        for (*place, _), cell in self.cells.items():
            if place == [part, label, k] and cell.name in self.records:
                row = self.records[cell.name]["row"]
                found.append(score(row["spaces"].get(_space(cell, space), {}), metric))
        scores = [one for one in found if one is not None]
        if len(scores) < 2:
            return scores[0] if scores else None
        values = [one.value for one in scores]
        return Score(mean(values), stdev(values) / len(values) ** 0.5)

    def floor(self, part: str, space: int, metric: str) -> Score | None:
        """The same metric between two sets of real images."""
        for cell in self.of(part):
            if cell.name in self.records:
                about = self.records[cell.name]["spaces"].get(_space(cell, space))
                return score(about["floor"], metric) if about else None
        return None

    def datasets(self, part: str) -> list[str]:
        """Whose published figures stand beside this experiment's."""
        parts = self.preset.parts if self.choice.one_model else (part,)
        return [load_experiment(name).title for name in parts]


def write_table(layout: Layout, folder: Path) -> None:
    """Write ``NAME.md`` and ``NAME.csv``."""
    preset, parts = layout.preset, [f"## {escape(layout.preset.title)}"]
    rows: list[list[object]] = []
    for part in layout.parts:
        for name in preset.metrics:
            parts.append(_block(layout, part, name, *_METRICS[name]))
            rows += _lines(layout, part, name, *_METRICS[name])
        for space in range(len(layout.of(part)[0].spaces)):
            if space != 1 or "FID_CLIP" in preset.metrics:
                parts.append(_block(layout, part, "", space, "kid"))
                rows += _lines(layout, part, "", space, "kid")
        parts.append(_describe(layout, part))
    (folder / f"{preset.name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    with (folder / f"{preset.name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "space", "metric", "row", "steps", "ours", "se", "published",
                         "published for"])  # fmt: skip
        writer.writerows(rows)


def write_figure_text(layout: Layout, caption: str, folder: Path) -> None:
    """Write ``NAME.md``, which shows ``NAME.png``."""
    name, title = layout.preset.name, escape(layout.preset.title)
    parts = [f"## {title}", f"![{title}]({name}.png)", caption]
    parts += [_describe(layout, part) for part in layout.parts]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_index(folder: Path) -> None:
    """Write ``results.md``: every table and figure that lies there, in their order."""
    texts = [folder / f"{name}.md" for name in preset_names()]
    found = [path.read_text(encoding="utf-8") for path in texts if path.is_file()]
    (folder / "results.md").write_text("\n".join(found), encoding="utf-8")


def _describe(layout: Layout, part: str) -> str:
    """What the cells of an experiment were made with, in a paragraph."""
    cells = layout.of(part)
    one, trained = cells[0], [cell.config for cell in cells if cell.trained]
    unseen = ", ".join(f"`{space}`" for space in one.spaces[2:])
    text = (
        f"{one.config.judge_samples:,} samples of `{one.config.model}` a cell against the "
        f"{_REAL[one.real]} images of `{one.config.data}`; `{one.spaces[0]}` stands for "
        f"Inception, `{one.spaces[1]}` for CLIP; {unseen} is never optimised."
    )
    budgets = {c.chain.steps: f"{c.iterations} x {c.batch_size}" for c in trained}
    if trained:
        said = ", ".join(f"{budget} at K = {k}" for k, budget in sorted(budgets.items()))
        text += f" Iterations x batch: {said}."
    if layout.choice.seeds > 1:
        text += f" Mean of {layout.choice.seeds} seeds and its standard error."
    return text


def _space(cell: Cell, place: int) -> str:
    named = {_SPATIAL: spatial, _CLASSES: with_classes}
    return named[place](cell) if place in named else cell.spaces[place]


def _block(layout: Layout, part: str, name: str, space: int, metric: str) -> str:
    """One metric: a row a method, a column a number of steps, with the published ones beside."""
    cell = layout.of(part)[0]
    beside = layout.datasets(part) if name else []
    header = [f"{_NAMES.get(metric, metric)} in {_space(cell, space)}"]
    for k in layout.steps:
        header += [f"{k} steps", *(f"published ({name}, {data})" for data in beside)]
    labels = list(layout.preset.rows)
    labels += [m for m in _published_rows(layout, beside, name) if m not in labels]
    lines = []
    for label in labels:
        row = layout.preset.rows.get(label)
        line = [f"**{escape(label)}**" if row and row.match else escape(label)]
        for k in layout.steps:
            ours = layout.score(part, label, k, space, metric)
            line += [
                _show(ours, metric),
                *(_printed(layout, data, name, label, k) for data in beside),
            ]
        lines.append(line)
    floor = _show(layout.floor(part, space, metric), metric)
    lines.append(["real images", *[floor, *[_DASH] * len(beside)] * len(layout.steps)])
    if layout.preset.improvement:
        lines.append(_improvement(layout, part, name, space, metric, beside))
    return table([escape(h) for h in header], lines)


def _improvement(
    layout: Layout, part: str, name: str, space: int, metric: str, beside: Sequence[str]
) -> list[str]:
    before, after = layout.preset.improvement
    line = ["Improvement"]
    for k in layout.steps:
        ours = [layout.score(part, label, k, space, metric) for label in (before, after)]
        line.append(_change(*(one.value if one else None for one in ours)))
        for data in beside:
            line.append(
                _change(*(_figure(layout, data, name, label, k) for label in (before, after)))
            )
    return line


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None or before <= 0:
        return _DASH
    return format_percent(100 * (after - before) / before, signed=True)


def _lines(
    layout: Layout, part: str, name: str, space: int, metric: str
) -> Iterable[list[object]]:
    """The block for CSV: one line a row, a number of steps and a data set published for."""
    cell = layout.of(part)[0]
    beside = layout.datasets(part) if name else [""]
    for label, k, data in product(layout.preset.rows, layout.steps, beside):
        ours = layout.score(part, label, k, space, metric)
        printed = _figure(layout, data, name, label, k)
        yield [
            cell.config.data, _space(cell, space), metric, label, k,
            "" if ours is None else ours.value, "" if ours is None else ours.se,
            "" if printed is None else printed, data if printed is not None else "",
        ]  # fmt: skip


def _published_rows(layout: Layout, datasets: Sequence[str], metric: str) -> list[str]:
    return list(
        dict.fromkeys(
            figure.method
            for figure in published_figures()
            if (figure.table, figure.metric) == (layout.preset.table, metric)
            and figure.dataset in datasets
        )
    )


def _figure(layout: Layout, data: str, name: str, label: str, k: int) -> float | None:
    return published(layout.preset.table, data, name, label, k)


def _printed(layout: Layout, data: str, name: str, label: str, k: int) -> str:
    value = _figure(layout, data, name, label, k)
    return _DASH if value is None else f"{value:g}"


def _show(found: Score | None, metric: str) -> str:
    if found is None or metric in ("fd", "kid"):
        return format_score(found, metric)
    return format_number(found.value)
