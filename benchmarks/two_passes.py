"""The two exact ways to a large batch's gradient: one backward pass, or two passes.

*One backward* keeps a latent a call and recomputes each network call. *Two passes* computes the
features without gradient, the loss's gradient with respect to them, and then each micro-batch
again with the same noise: keeping its activations, or recomputing them. Each is a process of its
own; its gradient is compared with that of the plain batch.

    python benchmarks/two_passes.py --batch-size 128 --micro-batch 16
"""

import json
from collections.abc import Callable

import torch
from record import measure_apart, median, peak_memory, timed, write
from work import Work, options, prepare

from mmd_ddm.maths.mmd import mmd2
from mmd_ddm.maths.pixels import clamp_straight_through
from mmd_ddm.training.losses.mmd import mmd_step

WAYS = ("plain batch", "one backward", "two passes", "two passes, recomputed")


def two_passes(work: Work, micro_batch: int) -> None:
    """Features, their gradient, and the chain once more, for samplers without noise."""
    objective, parts = work.objective, work.x_T.split(micro_batch)

    def features(x_T: torch.Tensor) -> torch.Tensor:
        return objective.features(clamp_straight_through(work.sampler(x_T)))

    with torch.no_grad():
        phi_x = torch.cat([features(part) for part in parts])
    phi_x.requires_grad_()
    mmd2(phi_x, objective.bank, objective.kernel, constant=objective.constant).backward()
    for part, gradient in zip(parts, phi_x.grad.split(micro_batch), strict=True):
        features(part).backward(gradient)


def way(name: str, work: Work, micro_batch: int) -> Callable[[], None]:
    """One gradient by the way of that name."""
    work.sampler.recompute = name in ("one backward", "two passes, recomputed")
    if name.startswith("two"):
        return lambda: two_passes(work, micro_batch)
    size = 0 if name == "plain batch" else micro_batch
    return lambda: mmd_step(work.sampler, [work.objective], work.x_T, micro_batch=size).backward()


def measure(settings: object) -> dict[str, object]:
    """Peak memory of the first gradient, the median time of the others, the error last."""
    work = prepare(settings)
    network = work.sampler.denoiser.network
    job = way(settings.way, work, settings.micro_batch)
    job()
    peak = peak_memory(work.device)
    seconds = [timed(job, work.device) for _ in range(settings.repeats)]
    gradients = []
    for run in (job, way("plain batch", work, 0)):
        network.zero_grad()
        run()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    return {
        "way": settings.way,
        "seconds": median(seconds),
        "peak MiB": round(peak, 1),
        "gradient error": f"{float(error):.1e}",
        "all": seconds,
    }


def main() -> None:
    parser = options(__doc__, batch_size=128, repeats=3)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--way", default="")
    parser.add_argument("--point", action="store_true", help="measure one way, print JSON")
    settings = parser.parse_args()
    if settings.point:
        print(json.dumps(measure(settings)))
        return
    arguments = {k: v for k, v in vars(settings).items() if k != "point"}
    rows = [measure_apart(__file__, **{**arguments, "way": name}) for name in WAYS]
    write("two-passes", settings.out, settings, rows)


if __name__ == "__main__":
    main()
