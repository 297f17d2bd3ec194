"""Resident memory over 2,000 iterations of a tiny model: it must stay flat.

    python benchmarks/long_run.py

The slope is a least-squares line through one reading an iteration, after a warm-up of 500.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from tiny_run import tiny_run

ITERATIONS, WARM_UP = 2000, 500


def resident() -> float:
    """MB of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    readings: list[float] = []

    def on_event(**event: object) -> None:
        if event["event"] == "train":
            readings.append(resident())

    with tempfile.TemporaryDirectory() as name:
        tiny_run(Path(name) / "run", ITERATIONS, save_every=50, on_event=on_event)
    steady = np.array(readings[WARM_UP:])
    slope = 100 * np.polyfit(np.arange(len(steady)), steady, 1)[0]
    print(
        f"{len(readings)} iterations: {readings[0]:.0f} MB at the first, {steady[0]:.0f} MB at "
        f"{WARM_UP}, {steady[-1]:.0f} MB at the last; {slope:+.3f} MB per 100 iterations"
    )
    return int(slope >= 1)


if __name__ == "__main__":
    sys.exit(main())
