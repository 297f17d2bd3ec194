"""Peak memory of every metric on as many features as papers use.

Two sets of features lie in files, as banks do, and are read through once, so that all their pages
count. A metric of all pairs takes up to an hour of a core: ``--seconds`` ends each after so much
time of the processor, and the row says so. Its blocks are all of one size: its peak comes early.

    python benchmarks/evaluation.py --seconds 300
"""

import argparse
import signal
import tempfile
from pathlib import Path

import numpy as np
import torch
from record import peak_memory, timed, write

from mmd_ddm.evaluation.metrics import METRICS, Real
from mmd_ddm.features.registry import make_features

CPU = torch.device("cpu")
CLASSES = 1008


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=0, help="end a metric after; 0 is never")
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks-out"))
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        x, y = (
            save_features(Path(folder, f"{seed}.npy"), settings.samples, settings.dim, seed)
            for seed in range(2)
        )
        phi = make_features("pixels", 1)  # any; the features are made up
        classes = torch.randn((settings.dim, CLASSES)) / settings.dim**0.5
        phi.logits = lambda part: part @ classes
        real = Real(y, phi)
        rows = [{"metric": "none", "seconds": 0.0, "run": "", "peak MiB": peak()}]
        for name in settings.metrics.split(","):
            rows.append(measure(name, x, real, settings.seconds))
    write("evaluation", settings.out, settings, rows)


def save_features(path: Path, n: int, dim: int, seed: int) -> torch.Tensor:
    """Positive and skewed, as pooled activations are; mapped, with every page in memory."""
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, dim))
    draw = np.random.default_rng(seed)
    for first in range(0, n, 1000):
        part = rows[first : first + 1000]
        part[:] = draw.standard_exponential(part.shape, np.float32) / 2
    del rows
    features = torch.from_numpy(np.load(path, mmap_mode="c"))
    for part in features.split(1000):
        part.sum()
    return features


def measure(name: str, x: torch.Tensor, real: Real, limit: float) -> dict[str, float | str]:
    """One metric, whole or stopped."""
    ended = "whole"

    def stop(*_: object) -> None:
        raise TimeoutError

    def job() -> None:
        nonlocal ended
        signal.setitimer(signal.ITIMER_PROF, limit)
        try:
            METRICS[name].score(x, real)
        except TimeoutError:
            ended = "stopped"
        signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, stop)
    return {"metric": name, "seconds": timed(job, CPU), "run": ended, "peak MiB": peak()}


def peak() -> float:
    """MiB so far."""
    return round(peak_memory(CPU), 1)


if __name__ == "__main__":
    main()
