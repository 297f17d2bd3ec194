"""Time of `mmd-ddm --help` and of `import mmd_ddm`, over that of another source tree.

Every repeat starts both trees one after the other with one interpreter, and gives one ratio of
processor times. The interval is between order statistics, and holds the median ratio with at
least 95 % (six repeats or more).

    python benchmarks/start_up.py --against ../before/src
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

from record import median, write
from scipy.stats import binom

SOURCE = Path(__file__).parents[1] / "src"
RESULTS = Path(__file__).parent / "results"
COMMANDS = {
    "mmd-ddm --help": ("-m", "mmd_ddm", "--help"),
    "import mmd_ddm": ("-c", "import mmd_ddm"),
}


def seconds_of(words: tuple[str, ...], tree: Path) -> float:
    """Of the processor, user and system, until an interpreter that sees this tree has ended."""
    began = _children()
    subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(tree.resolve())},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return _children() - began


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def interval(values: list[float]) -> tuple[float, float]:
    """Of the median, with at least 95 %: so many values lie on either side of it by chance."""
    beyond = max(int(binom.ppf(0.025, len(values), 0.5)), 1)
    ordered = sorted(values)
    return ordered[beyond - 1], ordered[-beyond]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="another src/")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.set_defaults(device="cpu")
    settings = parser.parse_args()
    trees = {"theirs": settings.against, "ours": SOURCE}
    rows = []
    for name, words in COMMANDS.items():
        for tree in trees.values():
            seconds_of(words, tree)  # writes the byte code
        runs = [
            {which: seconds_of(words, tree) for which, tree in trees.items()}
            for _ in range(settings.repeats)
        ]
        ratios = [run["ours"] / run["theirs"] for run in runs]
        low, high = interval(ratios)
        rows.append(
            {
                "command": name,
                **{which: median([run[which] for run in runs]) for which in trees},
                "ratio": median(ratios),
                "95 %": f"{low:.3f} to {high:.3f}",
                "all": ratios,
            }
        )
    write("start_up", settings.out, settings, rows)


if __name__ == "__main__":
    main()
