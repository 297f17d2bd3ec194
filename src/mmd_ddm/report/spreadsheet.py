"""Runs as CSV: a line for every number, with what it was drawn with, for other people's tools."""

import csv
import io
from collections.abc import Sequence

from mmd_ddm.evaluation.scores import METRICS, score
from mmd_ddm.report.runs import Run

__all__ = ["HEADER", "csv_text"]

_RUN = ("run", "name", "model", "sampler", "spacing", "eta", "clip", "steps", "nfe")
_SCORE = ("space", "role", "metric", "value", "standard_error", "real_vs_real")
HEADER = ",".join((*_RUN, *_SCORE))


def csv_text(runs: Sequence[Run]) -> str:
    """Every metric of every evaluated row of every run, unscaled; empty where none is known."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_RUN, *_SCORE])
    for run in runs:
        for row in run.results["rows"]:
            drawn = [run.folder.resolve().name, *(row.get(key, "") for key in _RUN[1:])]
            for space, scores in (row.get("spaces") or {}).items():
                about = run.results["spaces"].get(space, {})
                for metric in METRICS:
                    found, floor = score(scores, metric), score(about.get("floor") or {}, metric)
                    if found is not None:
                        cells = [space, about.get("role", ""), metric, found.value, found.se or ""]
                        writer.writerow([*drawn, *cells, floor.value if floor else ""])
    return file.getvalue()
