"""How a benchmark is timed and written: interleaved medians, JSON and a Markdown table."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.runs.files import write_json
from mmd_ddm.runs.folder import describe_environment

__all__ = ["interleaved", "measure_apart", "peak_memory", "timed", "write"]


def timed(job: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, with the work it left on the device.

    One thread on a CPU is timed by the processor's clock, which runs on when nobody else waits
    and stands still when another process is let in; all else by the wall clock.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    _finish(device)
    began = clock()
    job()
    _finish(device)
    return clock() - began


def interleaved(
    jobs: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each call after a warm-up; they take turns, so that a busy spell hits all."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            seconds[name].append(timed(job, device))
    return seconds


def measure_apart(script: str, **arguments: Any) -> dict[str, Any]:
    """What ``script --point`` prints in a process of its own, whose peak is nobody else's."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    done = subprocess.run(
        [sys.executable, script, "--point", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory(device: torch.device) -> float:
    """MiB at the most so far: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def write(
    name: str, out: Path, settings: Any, rows: Sequence[Mapping[str, Any]], **more: Any
) -> None:
    """``out/name.json`` with everything, ``out/name.md`` with a table of the plain values."""
    machine = _machine(settings.device)
    about = {key: str(value) for key, value in vars(settings).items()}
    content = {"machine": machine, "settings": about, "rows": list(rows), **more}
    write_json(out / f"{name}.json", {**describe_environment(), **content})
    columns = [key for key, value in rows[0].items() if not isinstance(value, list)]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row[key]) for key in columns)} |" for row in rows]
    lines += ["", f"{machine}. {json.dumps(about)}"]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def median(values: Sequence[float]) -> float:
    """To four digits, which is more than any timing holds."""
    return float(f"{statistics.median(values):.4g}")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else f"{value}"


def _machine(device: str) -> str:
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
        models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        threads, cores = torch.get_num_threads(), os.cpu_count()
        name = f"{(models or [platform.processor()])[0]}, {threads} of {cores} cores"
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return f"{name}, torch {torch.__version__}{load}"
