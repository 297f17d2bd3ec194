"""Time of drawing images against the bare network calls that it takes.

Drawing is noise from a generator an image, the chain's arithmetic, and the rounding to uint8.

    python benchmarks/sampling.py --steps 10
"""

import torch
from record import interleaved, median, write
from work import options, prepare

from mmd_ddm.samplers.draw import draw


def main() -> None:
    settings = options(__doc__).parse_args()
    work = prepare(settings)
    sampler, denoiser, n = work.sampler, work.sampler.denoiser, settings.batch_size
    draw(sampler, n, batch_size=n)

    @torch.no_grad()
    def bare() -> None:
        for i in range(sampler.nfe):
            denoiser(work.x_T, sampler.times[i % len(sampler.times)])

    jobs = {"bare network calls": bare, "drawing": lambda: draw(sampler, n, batch_size=n)}
    seconds = interleaved(jobs, settings.repeats, work.device)
    base = median(seconds["bare network calls"])
    rows = [
        {"what": name, "seconds": median(s), "images/s": n / median(s), "ratio": median(s) / base}
        for name, s in seconds.items()
    ]
    write("sampling", settings.out, settings, rows, all=seconds)


if __name__ == "__main__":
    main()
