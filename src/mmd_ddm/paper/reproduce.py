"""A reproduction from end to end: every missing cell of every preset, its table, its figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmd_ddm.paper.cell_work import CellWork, Unwalkable
from mmd_ddm.paper.cells import Cell, Choice, is_finished, lay_out, minutes
from mmd_ddm.paper.panels import draw_figure
from mmd_ddm.paper.presets import Preset, load_experiment
from mmd_ddm.paper.tables import Layout, write_figure_text, write_index, write_table
from mmd_ddm.runs.files import check_writable
from mmd_ddm.runs.folder import OutputError
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["reproduce"]


def reproduce(
    presets: Sequence[Preset], choice: Choice, out: Path, progress: Progress = silent
) -> None:
    """Fill ``out`` with the cells, tables and figures that it lacks, and ``results.md``.

    Raises:
        OutputError: a folder that holds something else.
        ValueError: whatever a finetuning refuses.
    """
    cells = out / "cells"
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not cells.is_dir()):
        raise OutputError(f"{out} holds something else; give a new or empty folder")
    check_writable(out)
    plans = [(preset, lay_out(preset, choice)) for preset in presets]
    left = _Left.over(plans, out)
    work = CellWork(out, progress)
    work.check_ahead([c for _, plan in plans for c in plan.values() if c.name in left.left])
    for preset, plan in plans:
        records = {}
        for (_, label, k, _), cell in plan.items():
            left.say(f"{preset.title}: {label}, {k} steps", cell, progress)
            try:
                records[cell.name] = work.make(cell)
            except Unwalkable as error:
                progress.say(f"left out {label} at {k} steps: {error}")
        for cell in plan.values():
            if cell.name in records:
                work.check(cell, records[cell.name])
        layout = Layout(preset, choice, plan, records)
        if preset.kind == "table":
            write_table(layout, out)
        else:
            write_figure_text(layout, draw_figure(layout, work, out, progress), out)
        write_index(out)


@dataclass
class _Left:
    """Which cell of how many, and about how long the rest takes."""

    left: dict[str, float | None]
    total: int

    @classmethod
    def over(cls, plans: Sequence[tuple[Preset, dict[Any, Cell]]], out: Path) -> "_Left":
        costs = {
            cell.name: minutes(cell, load_experiment(part))
            for _, plan in plans
            for (part, *_), cell in plan.items()
            if not is_finished(cell, out)
        }
        return cls(costs, len(costs))

    def say(self, what: str, cell: Cell, progress: Progress) -> None:
        """Announce a cell that is to be made."""
        if cell.name not in self.left:
            return
        known = [cost for cost in self.left.values() if cost is not None]
        rest = f", about {sum(known):.0f} minutes left" if len(known) == len(self.left) else ""
        number = self.total - len(self.left) + 1
        progress.say(f"[{number} of {self.total}{rest}] {what}")
        del self.left[cell.name]
