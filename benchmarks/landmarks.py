"""The error of a smaller bank: weighted landmarks, and as many rows without weights.

The cross term's gradient in the features of 64 generated images, against that of the whole
bundled reference set; the median over five choices of rows.

    python benchmarks/landmarks.py
"""

import torch
from record import median, write
from work import options

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import load_images
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.maths.kernels import make_kernel
from mmd_ddm.maths.mmd import cross, landmark_weights
from mmd_ddm.samplers.draw import draw

SIZES, CHOICES = (100, 300, 1000, 3000), 5


def main() -> None:
    parser = options(__doc__)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    denoiser = load_model(settings.model).denoiser
    phi = make_features(settings.features, denoiser.shape[0])
    bank = cached_features(load_images("fashion-mnist", denoiser.shape), phi)
    mean, std = bank.mean(0), bank.std(0)
    std = std.clamp_min(float(0.01 * std.mean()))
    sampler = build_sampler(ChainConfig(steps=settings.steps), denoiser)
    images = draw(sampler, settings.batch_size)[0]
    y, x = (bank - mean) / std, ((extract(images, phi) - mean) / std).requires_grad_()
    rows = []
    for name in ("cubic", "gaussian"):
        kernel = make_kernel(name)

        def gradient(some: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
            return torch.autograd.grad(cross(x, some, kernel, weights=weights), x)[0]  # noqa: B023

        exact = gradient(y)
        for size in SIZES:
            errors: dict[str, list[float]] = {"rows": [], "landmarks": []}
            for seed in range(CHOICES):
                some = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
                some = some[:size]
                weights = landmark_weights(some, y.split(4096), kernel)
                for way, w in (("rows", None), ("landmarks", weights)):
                    off = (gradient(some, w) - exact).norm() / exact.norm()
                    errors[way].append(float(off))
            found = {f"error, {way}": median(values) for way, values in errors.items()}
            rows.append({"kernel": name, "kept": size, "of": len(y), **found})
    write("landmarks", settings.out, settings, rows)


if __name__ == "__main__":
    main()
