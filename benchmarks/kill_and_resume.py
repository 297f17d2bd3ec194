"""Kill a run with SIGKILL at random moments, resume it, and compare the weights to the bit.

    python benchmarks/kill_and_resume.py

Every second kill waits for a checkpoint that is just being written. Prints one line a kill, then
the count; exit code 1 unless all are equal.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ITERATIONS = 60


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--worker", str(folder)])


def finish(folder: Path) -> str:
    if start(folder).wait() != 0:
        return "failed"
    return (folder / "weights.txt").read_text(encoding="utf-8")


def kill(folder: Path, delay: float, while_writing: bool) -> bool:
    """Start a run there and kill it; whether it was still running."""
    process = start(folder)
    while process.poll() is None and not (folder / "log.jsonl").exists():
        time.sleep(0.01)
    time.sleep(delay)
    while while_writing and process.poll() is None:
        if half_written(folder):
            break
    alive = process.poll() is None
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def half_written(folder: Path) -> bool:
    """Whether a checkpoint is being written, or was when the run was killed."""
    return any(folder.glob("checkpoint.pt.*.tmp"))


def main(kills: int) -> int:
    draw, equal, torn = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        expected = finish(whole)
        times = [(whole / file).stat().st_mtime for file in ("run.json", "weights.txt")]
        length, done, attempt = times[1] - times[0], 0, 0
        while done < kills:
            attempt += 1
            folder = Path(name) / f"{attempt}"
            if not kill(folder, draw.uniform(0, 0.9 * length), while_writing=done % 2 == 1):
                continue
            done += 1
            partial = half_written(folder)
            same = finish(folder) == expected
            torn, equal = torn + partial, equal + same
            print(f"{done}: {'half a checkpoint left, ' * partial}equal: {same}", flush=True)
    print(f"{equal} of {kills} equal to the uninterrupted run; {torn} were killed in a write")
    return int(equal != kills)


def work(folder: Path) -> int:
    from tiny_run import tiny_run

    weights = tiny_run(folder, ITERATIONS, save_every=1)
    (folder / "weights.txt").write_text(weights, encoding="utf-8")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.exit(work(given.worker) if given.worker else main(given.kills))
