"""Peak memory of a finetuning iteration against the steps and against the batch.

Every point is a process of its own, at one micro-batch, all network calls recomputed. On a CPU it
is the peak resident set, with the interpreter and the libraries in it (the row of 0 steps).

    python benchmarks/memory.py --micro-batch 64
"""

import json

import torch
from record import measure_apart, peak_memory, timed, write
from work import options, prepare

from mmd_ddm.training.losses.mmd import mmd_step

STEPS, BATCHES = (1, 5, 10, 20, 50), (64, 256, 1024, 2048)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--point", action="store_true", help="measure one point, print JSON")
    settings = parser.parse_args()
    if settings.point:
        print(json.dumps(measure(settings)))
        return
    arguments = {k: v for k, v in vars(settings).items() if k != "point"}
    points = [(0, 2), *((k, settings.batch_size) for k in STEPS)]
    points += [(settings.steps, n) for n in BATCHES if n != settings.batch_size]
    rows = [
        measure_apart(__file__, **{**arguments, "steps": steps, "batch_size": batch})
        for steps, batch in points
    ]
    peaks = {(row["steps"], row["batch"]): row["peak MiB"] for row in rows}
    ratios = {
        "50 steps / 5 steps": peaks[50, settings.batch_size] / peaks[5, settings.batch_size],
        "batch 2048 / 64": peaks[settings.steps, 2048] / peaks[settings.steps, 64],
    }
    write("memory", settings.out, settings, rows, ratios=ratios)
    print(ratios)


def measure(settings: object) -> dict[str, float]:
    """One iteration with its optimiser; 0 steps is everything but the iteration."""
    work = prepare(settings, steps=settings.steps or 1)
    sampler, seconds = work.sampler, 0.0
    sampler.recompute = True
    optimizer = torch.optim.Adam(sampler.denoiser.network.parameters(), 1e-6, fused=True)

    def step() -> None:
        mmd_step(
            sampler, [work.objective], work.x_T, work.noise, micro_batch=settings.micro_batch
        ).backward()
        optimizer.step()

    if settings.steps:
        seconds = timed(step, work.device)
    return {
        "steps": settings.steps,
        "batch": settings.batch_size,
        "peak MiB": round(peak_memory(work.device), 1),
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    main()
