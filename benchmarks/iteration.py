"""Time of a finetuning iteration against the paper's algorithm as published.

Published: the whole batch of 128 at once, every network call recomputed, float32, the feature
extractor asked for the batch and for as many fresh real images, the MMD in float64. Ours:
micro-batches, the features of the data known beforehand, and no network call recomputed unless
``--keep`` says so. Same network, extractor and batch; the two take turns.

    python benchmarks/iteration.py --features efficientnet-lite0 --precision bfloat16
"""

import math
from collections.abc import Callable

import torch
from record import interleaved, median, write
from torch import Tensor, nn
from work import Work, options, prepare

from mmd_ddm.maths.mmd import mmd2
from mmd_ddm.training.losses.mmd import mmd_step


def published(work: Work, reals: Tensor) -> Tensor:
    """The loss as the paper computes it: two sets of images, one kernel matrix in float64."""
    sampler, objective = work.sampler, work.objective
    images = sampler(work.x_T, work.noise).clamp(-1, 1)
    with torch.no_grad():
        phi_y = objective.features(reals)
    return mmd2(objective.features(images).double(), phi_y.double(), objective.kernel)


def main() -> None:
    parser = options(__doc__, batch_size=128)
    parser.add_argument("--micro-batch", type=int, default=64, help="0 is the whole batch")
    parser.add_argument("--keep", type=int, default=100, help="network calls not recomputed")
    settings = parser.parse_args()
    theirs = prepare(settings, precision="float32")
    theirs.sampler.recompute = True
    ours = prepare(settings)
    ours.sampler.denoiser.use_fast_layout()
    ours.sampler.recompute = settings.keep < settings.steps
    ours.sampler.keep = settings.keep
    reals = torch.rand_like(theirs.x_T) * 2 - 1

    def step_of(work: Work, loss_of: Callable[[], Tensor]) -> Callable[[], None]:
        network = work.sampler.denoiser.network
        optimizer = torch.optim.Adam(network.parameters(), 1e-6, fused=work is ours)

        def step() -> None:
            optimizer.zero_grad()
            loss_of().backward()
            nn.utils.clip_grad_norm_(network.parameters(), math.inf)
            optimizer.step()

        return step

    def our_loss() -> Tensor:
        return mmd_step(
            ours.sampler, [ours.objective], ours.x_T, ours.noise, micro_batch=settings.micro_batch
        )

    jobs = {
        "published": step_of(theirs, lambda: published(theirs, reals)),
        "ours": step_of(ours, our_loss),
    }
    seconds = interleaved(jobs, settings.repeats, ours.device)
    base = median(seconds["published"])
    rows = [
        {
            "algorithm": name,
            "precision": "float32" if name == "published" else settings.precision,
            "seconds": median(values),
            "ratio": median(values) / base,
            "all": values,
        }
        for name, values in seconds.items()
    ]
    write(f"iteration-{settings.features}-{settings.precision}", settings.out, settings, rows)


if __name__ == "__main__":
    main()
