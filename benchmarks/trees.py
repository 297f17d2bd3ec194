"""Time of an iteration of an unconditional model, over that of another source tree.

Each tree computes in a process of its own; they take turns, an iteration each, which gives one
ratio of processor times. The interval is that of `start_up`.

    python benchmarks/trees.py --against ../before/src
"""

import os
import subprocess
import sys
from pathlib import Path

from record import median, timed, write
from start_up import SOURCE, interval
from work import Work, options, prepare

from mmd_ddm.training.losses.mmd import mmd_step


class Tree:
    """A process that sees this source tree, and runs an iteration when it is asked for one."""

    def __init__(self, source: Path, words: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *words],
            env={**os.environ, "PYTHONPATH": str(source.resolve())},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def iteration(self) -> float:
        """Seconds of the processor."""
        print(file=self.process.stdin)
        return float(self.process.stdout.readline())


def main() -> None:
    parser = options(__doc__, batch_size=16, repeats=15)
    parser.add_argument("--against", type=Path, help="another src/")
    parser.add_argument("--worker", action="store_true", help="compute, when told to")
    settings = parser.parse_args()
    if settings.worker:
        work = prepare(settings)
        for _ in sys.stdin:
            print(timed(lambda: _iterate(work), work.device), flush=True)
        return
    trees = {
        name: Tree(source, sys.argv[1:])
        for name, source in {"theirs": settings.against, "ours": SOURCE}.items()
    }
    for _ in range(2):  # to warm up
        runs = [{name: tree.iteration() for name, tree in trees.items()}]
    runs = [
        {name: tree.iteration() for name, tree in trees.items()} for _ in range(settings.repeats)
    ]
    for tree in trees.values():
        tree.process.communicate()
    ratios = [run["ours"] / run["theirs"] for run in runs]
    low, high = interval(ratios)
    row = {
        **{name: median([run[name] for run in runs]) for name in trees},
        "ratio": median(ratios),
        "95 %": f"{low:.3f} to {high:.3f}",
        "all": ratios,
    }
    write("trees", settings.out, settings, [row])


def _iterate(work: Work) -> None:
    mmd_step(work.sampler, [work.objective], work.x_T, work.noise).backward()


if __name__ == "__main__":
    main()
