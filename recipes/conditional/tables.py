"""What ``rows.jsonl`` says, as a table a base: held-out KID, class KID and accuracy.

python recipes/conditional/tables.py --out docs/conditional
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmd_ddm.evaluation.scores import ABOVE, Score, contest, format_score, metric_name
from mmd_ddm.report.tables import Strong, Table
from mmd_ddm.runs.files import write_text

ROWS = Path(__file__).parents[2] / "docs/conditional/rows.jsonl"
METRICS = ("kid", "class_kid", "accuracy")
Scores = list[Mapping[str, Any]]  # of a space, by seed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    asked = parser.parse_args(arguments)
    jobs = [json.loads(line) for line in asked.rows.read_text(encoding="utf-8").splitlines()]
    most = max(job["samples"] for job in jobs)
    jobs = [job for job in jobs if job["samples"] == most]  # others are another judgement
    bases = dict.fromkeys(job["base"] for job in jobs)
    tables = [table(base, [job for job in jobs if job["base"] == base]) for base in bases]
    asked.out.mkdir(parents=True, exist_ok=True)
    write_text(asked.out / "tables.md", "\n\n".join(one.markdown() for one in tables) + "\n")


def table(base: str, jobs: Sequence[dict[str, Any]]) -> Table:
    """All that was drawn with a base and from it; below a finetuned row its gain."""
    roles = {name: about["role"] for name, about in jobs[0]["spaces"].items()}
    spaces = [s for role in ("held-out", "optimised") for s in roles if roles[s] == role]
    drawn: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}  # by seed
    for job in jobs:
        finetuned, like = contest(job)
        for row in job["rows"]:
            if row is not finetuned:
                drawn.setdefault((_words("base", row), ""), {})[job["seed"]] = row
        of = (_words(job["method"], finetuned or {}), "finetuned")
        found = {**(finetuned or {}), ABOVE: (like or {})[ABOVE], "verdict": job["verdict"]}
        drawn.setdefault(of, {})[job["seed"]] = found
    measured = [(s, m) for s in spaces for m in METRICS if m in jobs[0]["rows"][0]["spaces"][s]]
    most, lines = max(map(len, drawn.values())), []
    for (words, kind), by_seed in drawn.items():
        rows = [*by_seed.values()]
        verdicts = dict.fromkeys(row.get("verdict", "") for row in rows)
        cells = [_score([row["spaces"][s] for row in rows], m) for s, m in measured]
        seeds = f" ({len(rows)} of {most} seeds)" * (len(rows) < most)
        lines.append([words + seeds, str(rows[0]["nfe"]), *cells, ", ".join(verdicts)])
        if kind:
            gains = [_gain([row[ABOVE].get(s, {}) for row in rows], m) for s, m in measured]
            lines.append(["gain over the base", "", *gains, ""])
    floors = jobs[0]["spaces"]
    real = [_score([floors[s]["floor"]], m) for s, m in measured]
    lines.append(["real images", "", *real, ""])
    titles = [f"{metric_name(m)} {s}" for s, m in measured]
    return Table([base, "calls", *titles, "verdict"], {"": lines})


def _words(name: str, row: Mapping[str, Any]) -> str:
    guidance = row.get("guidance", 1)
    return f"{name}, {row['steps']} steps" + f", guidance {guidance:g}" * (guidance != 1)


def _score(rows: Scores, metric: str) -> str:
    return format_score(_over(rows, metric), metric)


def _over(rows: Scores, metric: str) -> Score | None:
    found = [row for row in rows if metric in row]
    return Score.of_seeds(found, metric) if found else None


def _gain(rows: Scores, metric: str) -> str:
    """How much better, of pairs from the same noise; strong where that is certain."""
    if (found := _over(rows, metric)) is None:
        return ""
    gain = found.times(-1 if metric == "accuracy" else 1)
    text = format_score(gain, metric)
    return Strong(text) if gain.significant else text


if __name__ == "__main__":
    main()
