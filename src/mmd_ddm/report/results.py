"""What a run or a comparison of samplers found: a table for people, and the numbers for programs.

A comparison is sorted by steps, and then by KID in the first space; finetuned models stand out. Of
a sampler on its published times and on others the better is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from mmd_ddm.evaluation.scores import (
    ABOVE_BEST,
    Row,
    Score,
    before_after,
    budgets_in,
    contest,
    format_number,
    format_percent,
    format_score,
    metric_name,
    metrics_in,
    row_label,
    score,
)
from mmd_ddm.report.runs import Run
from mmd_ddm.report.tables import Strong, Table

__all__ = [
    "NUMBERS",
    "classes_table",
    "comparison_numbers",
    "comparison_table",
    "numbers",
    "paired_cell",
    "results_table",
    "sampler_label",
    "short_names",
    "shown_rows",
]

_DASH = "\N{EN DASH}"
_WALKED = ("spacing", "order", "steps", "nfe")
_COMPARED = (("kid", "spaces"), ("kid", ABOVE_BEST), ("fd", "spaces"))  # metric, where it stands
_SAID = {"spaces": "", ABOVE_BEST: " above best"}
_DRAWN = ("name", "model", "sampler", "spacing", "eta", "clip", "steps", "nfe")
NUMBERS = (
    "run", *_DRAWN, "space", "role", "metric", "value", "standard_error", "real_vs_real",
)  # fmt: skip


def results_table(results: dict[str, Any], caption: str = "") -> Table:
    """Base, finetuned and floor: a line a metric and space, a group a metric; KID in thousandths.

    Of several numbers of steps, a line for each.

    Args:
        results: the content of ``results.json``.
        caption: of the table.
    """
    if budgets_in(results):
        return _budgets_table(results, caption)
    rows = before_after(results)
    finetuned, base = contest(results)
    names = short_names(list(results["spaces"]))
    columns = [
        "space",
        "role",
        "metric",
        row_label(base, finetuned, results["rows"]) if base else "base",
        row_label(finetuned, finetuned, results["rows"]) if finetuned else "finetuned",
        "change",
        *(rows[0].others if rows else ()),
        "real vs real",
        "gap closed",
    ]
    groups: dict[str, list[Sequence[str]]] = {}
    for row in rows:
        groups.setdefault(metric_name(row.metric), []).append(_line(row, names[row.space]))
    return Table(columns, groups, words=3, caption=caption, note=_of_few(results))


def classes_table(results: dict[str, Any]) -> Table | None:
    """Base and finetuned by class, a line each, in the first judge; None where none is known."""
    finetuned, base = contest(results)
    if not (finetuned and base and finetuned.get("classes") and base.get("classes")):
        return None
    rows = base["classes"], finetuned["classes"]
    space = min(rows[0], key=lambda name: results["spaces"][name].get("role") != "held-out")
    names = (results.get("protocol") or {}).get("classes") or []
    before, after = ({one["class"]: one for one in row[space]} for row in rows)
    lines = []
    for label, one in before.items():
        both = (one, after.get(label, {}))
        scores = [
            format_score(score(found, metric), metric)
            for metric in ("accuracy", "kid")
            for found in both
        ]
        name = str(names[label]) if label < len(names) else str(label)
        lines.append([name, str(one["images"]), *scores])
    columns = ["class", "images"]
    columns += [
        f"{metric}, {name}"
        for metric in ("accuracy", "KID x1000")
        for name in ("base", "finetuned")
    ]
    return Table(columns, {"": lines}, note=f"In {space}.")


def _budgets_table(results: dict[str, Any], caption: str) -> Table:
    """A line a metric, space and number of steps; of those of the base alone as well."""
    columns = [
        "space", "role", "metric", "steps", "base", "finetuned", "change", "real vs real",
        "gap closed",
    ]  # fmt: skip
    names, found = short_names(list(results["spaces"])), list[tuple[int, Row]]()
    for steps in sorted({row["steps"] for row in results["rows"]}):
        known = steps in budgets_in(results)
        one = {**results, "rows": [row for row in results["rows"] if row["steps"] == steps]}
        for row in before_after(one):
            base = row.base if known else next(iter(row.others.values()))
            found.append((steps, replace(row, base=base, others={})))
    groups: dict[str, list[Sequence[str]]] = {}
    order = list(results["spaces"])
    for steps, row in sorted(found, key=lambda pair: order.index(pair[1].space)):
        line = _line(row, names[row.space])
        groups.setdefault(metric_name(row.metric), []).append([*line[:3], str(steps), *line[3:]])
    return Table(columns, groups, words=3, caption=caption, note=_of_few(results))


def _of_few(results: dict[str, Any]) -> str:
    """A word of caution where FD is of fewer images than dimensions; empty where it is not."""
    about = results.get("protocol") or {}
    images = min(filter(None, (about.get("samples"), about.get("real"))), default=0)
    names = short_names(list(results["spaces"]))
    wide = [
        f"{names[space]} ({of['dim']} dimensions)"
        for space, of in results["spaces"].items()
        if (of.get("dim") or 0) > images > 0 and "fd" in (of.get("floor") or {})
    ]
    if not wide:
        return ""
    return (
        f"FD is of {images:,} images, fewer than the dimensions of {', '.join(wide)}: their "
        "covariance has no full rank, and FD is compared at equal numbers alone."
    )


def _line(row: Row, name: str) -> list[str]:
    found = [row.base, row.finetuned, *row.others.values(), row.floor]
    base, finetuned, *others = (format_score(s, row.metric) for s in found)
    change, share = format_percent(row.change, signed=True), format_percent(row.share, scale=100.0)
    metric = metric_name(row.metric)
    after = Strong(finetuned) if row.finetuned else finetuned
    return [name, row.role, metric, base, after, change, *others, share]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Spaces without what they were made from: ``encoder:PATH`` is ``encoder``, if only one is."""
    kinds = [name.partition(":")[0] for name in names]
    return {
        name: kind if kinds.count(kind) == 1 else name
        for name, kind in zip(names, kinds, strict=True)
    }


def numbers(run: Run) -> Iterator[list[object]]:
    """Every metric of every row in every space, unscaled; a line of `NUMBERS` each."""
    spaces = run.results["spaces"]
    for row in run.results["rows"]:
        drawn = [run.name, *(row.get(key) for key in _DRAWN)]
        for space, scores in (row.get("spaces") or {}).items():
            about = spaces.get(space, {})
            for metric in metrics_in(run.results):
                found, floor = score(scores, metric), score(about.get("floor") or {}, metric)
                if found is not None:
                    cells = [space, about.get("role"), metric, found.value, found.se or None]
                    yield [*drawn, *cells, floor.value if floor else None]


def comparison_table(results: dict[str, Any]) -> Table:
    """A line a row, a group a number of steps, and the floor.

    Args:
        results: the content of ``bench.json``.
    """
    found = [(space, *metric) for space in results["spaces"] for metric in _COMPARED]
    columns = ["sampler", "spacing", "order", "steps", "NFE"]
    columns += [f"{space} {metric_name(metric)}{_SAID[key]}" for space, metric, key in found]
    groups = {
        f"{steps} steps": [_compared(row, found) for row in rows]
        for steps, rows in groupby(shown_rows(results), lambda row: row["steps"])
    }
    floors = [
        _cell(results["spaces"][space].get("floor"), metric) if key == "spaces" else _DASH
        for space, metric, key in found
    ]
    groups[""] = [["real vs real", _DASH, _DASH, _DASH, _DASH, *floors, _DASH]]
    caption = f"Samplers on {results['model']}: KID in thousandths, FD, and seconds an image"
    return Table([*columns, "s/image"], groups, words=2, caption=caption, note=_of_few(results))


def comparison_numbers(results: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """The same for CSV, unscaled and without the floor: the columns and the lines."""
    keys = ["name", "model", "sampler", "spacing", "order", "steps", "nfe", "seeds"]
    found = [
        (space, f"{metric}{se}", key)
        for space in results["spaces"]
        for metric, key in _COMPARED
        for se in ("", "_se")
    ]
    titles = [f"{space} {metric}{_SAID[key]}" for space, metric, key in found]
    columns = [*keys, "seconds_per_image", *titles]
    lines = [
        [
            *(row.get(key) for key in keys),
            round(1 / row["images_per_second"], 6),
            *(row.get(key, {}).get(space, {}).get(metric) for space, metric, key in found),
        ]
        for row in shown_rows(results)
    ]
    return columns, lines


def sampler_label(row: dict[str, Any]) -> str:
    """Of a base its sampler, of a finetuned model its name as well."""
    if row["name"] == "base":
        return str(row["sampler"])
    return f"finetuned {Path(row['model']).name} ({row['sampler']})"


def shown_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a comparison that tables show, in their order."""
    space = next(iter(results["spaces"]))
    shown = [row for row in results["rows"] if row.get("shown", True)]
    return sorted(shown, key=lambda row: (row["steps"], row["spaces"][space]["kid"]))


def _compared(row: dict[str, Any], found: list[tuple[str, str, str]]) -> list[str]:
    cells = [sampler_label(row), *(str(row.get(key, _DASH)) for key in _WALKED)]
    cells += [_cell(row.get(key, {}).get(space), metric) for space, metric, key in found]
    cells.append(format_number(1 / row["images_per_second"]))
    return [Strong(cell) for cell in cells] if row["name"] == "finetuned" else cells


def _cell(scores: dict[str, float] | None, metric: str) -> str:
    return format_score(score(scores or {}, metric), metric)


def paired_cell(found: Sequence[Mapping[str, float]], metric: str) -> str:
    """The mean over seeds of paired differences; strong where it is below zero for certain."""
    less = Score.of_seeds(found, metric)
    text = format_score(less, metric)
    return Strong(text) if less.times(-1).significant else text
