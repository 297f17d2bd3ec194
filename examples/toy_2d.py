r"""The whole method on a 2-D mixture of Gaussians, in half a minute on one core.

A diffusion model turns noise into data in many steps. Asked for three steps only, it draws
something else: each step follows the *average* of all the data it could be heading for. This
file trains such a model, measures how far its three-step samples are from the data, and finetunes
it, through the three steps, to bring them there. Read it from top to bottom:

    1. data          five Gaussians on a circle, as "images" of 2 channels and 1 x 1 pixel
    2. denoiser      a small network, trained with the denoising loss (paper Eq. 5)
    3. sampler       DDIM at K chosen times; one loop, which gradients pass
    4. features      here none are needed: phi(x) = x
    5. kernel, MMD   how far two sets of points are apart (Eqs. 6, 7)
    6. finetuning    lower the MMD between what the sampler draws and the data

Run it:

    python examples/toy_2d.py --plot toy.png

On images only two things change: the denoiser is a pretrained UNet, and phi is a network that
knows what matters in a picture. `mmd-ddm demo` is that.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from mmd_ddm.maths.kernels import Gaussian
from mmd_ddm.maths.mmd import mmd2, within
from mmd_ddm.maths.random import generator
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import select_times
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.ddim import DDIM

SHAPE = (2, 1, 1)
STEPS = 3

# Two kernels: finetuning lowers the MMD of the first; the second, finer, judges the result and is
# never optimised. A gain that the judge does not see is no gain.
OPTIMISED = Gaussian(sigma=0.2)
JUDGE = Gaussian(sigma=0.1)


# 1. Data


def mixture(n: int, g: torch.Generator) -> Tensor:
    """Five Gaussians of standard deviation 0.05 on a circle of radius 0.8."""
    angle = torch.randint(5, (n,), generator=g) * (2 * math.pi / 5)
    centre = 0.8 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return (centre + 0.05 * torch.randn(n, 2, generator=g)).view(n, *SHAPE)


# 2. Denoiser


class Network(nn.Module):
    """eps-prediction from a point and its time."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("frequency", 2.0 ** torch.arange(8) * math.pi / 1000)
        self.layers = nn.Sequential(
            nn.Linear(2 + 16, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Points [n, 2, 1, 1] and times [n] to eps [n, 2, 1, 1]."""
        phase = t[:, None] * self.frequency
        features = torch.cat([x_t.flatten(1), phase.sin(), phase.cos()], dim=1)
        return self.layers(features).view_as(x_t)


def pretrain(denoiser: Denoiser, iterations: int, seed: int, batch: int = 512) -> None:
    """Minimise || eps - eps_theta(x_t, t) ||^2 at random times (Eq. 5)."""
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    alpha_bar = denoiser.schedule.alpha_bar.float()
    for i in range(iterations):
        g = generator(seed, 0, i, "pretrain")
        x_0 = mixture(batch, g)
        eps = torch.randn(batch, *SHAPE, generator=g)
        t = torch.randint(len(alpha_bar), (batch,), generator=g)
        abar_t = alpha_bar[t].view(-1, 1, 1, 1)
        x_t = abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * eps
        loss = (denoiser(x_t, t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()


# 3. Sampler


def ddim(denoiser: Denoiser, steps: int) -> Sampler:
    """DDIM at `steps` equally spaced times of the 1000."""
    return DDIM(denoiser, select_times("leading", steps, len(denoiser.schedule)))


def draw(sampler: Sampler, n: int, seed: int) -> Tensor:
    """Points for looking at and measuring, so without gradients."""
    with torch.no_grad():
        return sampler(torch.randn(n, *SHAPE, generator=generator(seed, 0, 0, "evaluate")))


# 4. Features


def phi(images: Tensor) -> Tensor:
    """[n, 2, 1, 1] to [n, 2]: in two dimensions the points are their own features."""
    return images.flatten(1)


# 5 and 6. Finetuning


def finetune(sampler: Sampler, real: Tensor, iterations: int, seed: int, batch: int = 256) -> None:
    """Minimise the unbiased MMD^2 between drawn and real features (Eq. 7).

    The gradient goes back through the kernel, phi and every step of the sampler into the
    denoiser's weights. The real features are computed once; so is their own term of the MMD, the
    constant c.
    """
    optimizer = torch.optim.Adam(sampler.parameters(), lr=5e-4)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    bank = phi(real)
    c = float(within(bank, OPTIMISED))
    for i in range(iterations):
        x_T = torch.randn(batch, *SHAPE, generator=generator(seed, 0, i, "finetune"))
        loss = mmd2(phi(sampler(x_T)), bank, OPTIMISED, constant=c)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()


# What came of it


def report(name: str, points: Tensor, heldout: Tensor) -> tuple[float, float]:
    """Print the MMD^2 of a set of points to real ones that finetuning never saw."""
    x, y = phi(points), phi(heldout)
    optimised, judge = (float(mmd2(x, y, kernel)) for kernel in (OPTIMISED, JUDGE))
    print(f"{name:<20} {optimised:12.6f} {judge:12.6f}")
    return optimised, judge


def scatter(path: Path, pictures: dict[str, Tensor]) -> None:
    """Draw the sets of points side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(pictures), 3.3), layout="constrained")
    axes = figure.subplots(1, len(pictures), sharex=True, sharey=True)
    for axis, (title, points) in zip(axes, pictures.items(), strict=True):
        axis.scatter(*phi(points).T, s=2, alpha=0.4, linewidths=0)
        axis.set(title=title, xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Pretrain, measure, finetune, measure again."""
    parser = argparse.ArgumentParser(description="MMD finetuning on a 2-D mixture")
    parser.add_argument("--pretrain", type=int, default=3000, help="iterations of Eq. 5")
    parser.add_argument("--finetune", type=int, default=400, help="iterations of Eq. 7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="write a picture here")
    options = parser.parse_args()
    seed, n = options.seed, 2048

    torch.manual_seed(seed)
    denoiser = UNet2D(Network(), NoiseSchedule.linear(), shape=SHAPE)
    pretrain(denoiser, options.pretrain, seed)
    sampler = ddim(denoiser, STEPS)
    real = mixture(n, generator(seed, 0, 0, "reference"))
    heldout = mixture(n, generator(seed, 0, 0, "heldout"))

    print(f"times {' '.join(f'{t:g}' for t in sampler.times)}")
    print(f"{'MMD^2 to the data':<20} {'optimised':>12} {'held out':>12}")
    report("floor (real, real)", real, heldout)
    report("base, 50 steps", draw(ddim(denoiser, 50), n, seed), heldout)
    before = draw(sampler, n, seed)
    old = report(f"base, {STEPS} steps", before, heldout)
    finetune(sampler, real, options.finetune, seed)
    after = draw(sampler, n, seed)
    new = report(f"finetuned, {STEPS} steps", after, heldout)
    falls = [100 * (1 - b / a) for a, b in zip(old, new, strict=True)]
    print(f"the MMD^2 falls by {falls[0]:.1f} % (optimised) and {falls[1]:.1f} % (held out)")
    if options.plot:
        names = (f"base, {STEPS} steps", f"finetuned, {STEPS} steps", "data")
        scatter(options.plot, dict(zip(names, (before, after, heldout), strict=True)))


if __name__ == "__main__":
    main()
