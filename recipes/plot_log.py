"""Draw the curves of a training log: the loss, and the held-out accuracy where there is one.

python recipes/plot_log.py recipes/fashion-mnist/base.jsonl --out loss.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

CURVES = ("loss", "held_out_accuracy")


def draw(log: Path) -> Figure:
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    curves = [key for key in CURVES if key in rows[-1]]
    figure = Figure(figsize=(5 * len(curves), 3), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        values = [row[key] for row in rows]
        axes.plot([row["step"] for row in rows], values, color="#0b6e99", linewidth=1)
        scale = "log" if max(values) > 10 * min(values) else "linear"
        axes.set(xlabel="iteration", ylabel=key.replace("_", " "), yscale=scale)
        axes.grid(which="both", alpha=0.25)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(args.log).savefig(args.out, dpi=100)


if __name__ == "__main__":
    main()
