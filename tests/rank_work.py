"""What the ranks of tests/test_ranks.py do: python rank_work.py FOLDER, one process a rank.

The same functions, called in a single process, give what the ranks must agree with.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from small_net import SmallNet

from mmd_ddm.config import FinetuneConfig, SelectConfig
from mmd_ddm.evaluation.metrics import kid_projections
from mmd_ddm.features.bank import extract
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.runs import ranks
from mmd_ddm.runs.launch import rank
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective

SAMPLERS = ("ddim", "ddpm-small", "dpm-solver++-2m")
BATCH = 5  # no multiple of the ranks
CONFIG = FinetuneConfig(
    iterations=6, batch_size=BATCH, lr=1e-3, ema_decay=0.5, save_every=2,
    select=SelectConfig(every=3, diverged=0),
)  # fmt: skip


class Hungry(Pixels):
    """Runs out of memory once on the way there, in that call, and once on the way back."""

    def __init__(self, there=0, back=0):
        super().__init__(1)
        self.there, self.back, self.calls = there, back, 0

    def forward(self, images):
        self.calls += 1
        if self.calls == self.there:
            self.fail()
        features = super().forward(images)
        # Of calls that are made again on the way back, only the second has a gradient.
        if 0 < self.back <= self.calls and features.requires_grad:
            features.register_hook(self.fail)
            self.back = 0
        return features

    def fail(self, gradient=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def make(name="ddim", dtype=torch.float32):
    """A chain of three steps of a network that is always the same, its objective, its data."""
    torch.manual_seed(0)
    denoiser = UNet2D(SmallNet().to(dtype), NoiseSchedule.linear(), shape=(1, 8, 8))
    draw_from = torch.Generator().manual_seed(1)
    real = torch.randint(0, 200, (20, 1, 8, 8), generator=draw_from).byte()
    phi = Pixels(1)
    bank = extract(real, phi, batch_size=6)
    objective = Objective.over(phi, bank.to(dtype), Polynomial())
    return make_sampler(name, denoiser, (700, 300, 0)), objective, bank


def weights(sampler):
    return torch.cat([p.detach().flatten() for p in sampler.denoiser.network.parameters()])


def gradients():
    """Loss and gradient of one iteration: in parts, recomputed, by every sampler and type."""
    found = {}
    for name in SAMPLERS:
        for dtype in (torch.float64, torch.float32):
            sampler, objective, _ = make(name, dtype)
            sampler.recompute = True
            z = torch.randn(
                (sampler.draws, BATCH, 1, 8, 8),
                generator=torch.Generator().manual_seed(2),
                dtype=torch.float64,
            ).to(dtype)
            noise = z[1:] if sampler.stochastic else None
            loss = mmd_step(sampler, [objective], z[0], noise, micro_batch=2)
            loss.backward()
            ranks.sum_gradients(sampler.denoiser.network.parameters())
            parts = [p.grad.flatten() for p in sampler.denoiser.network.parameters()]
            found[f"{name} {dtype}"] = torch.cat([loss.detach()[None], *parts])
    return found


def run(folder, die_at=-1):
    """A finetuning with its evaluations, and ten images of the result.

    The second rank runs out of memory twice; or it is killed after an iteration.
    """
    sampler, objective, bank = make()
    if rank() == 1 and die_at < 0:
        objective = replace(objective, phi=Hungry(there=2, back=7))
    told = []

    def on_event(**event):
        if event["event"] != "fault":
            told.append(event.get("loss", event.get("kid")))
        if rank() == 1 and event["step"] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def evaluate():
        drawn = draw(sampler, 9, batch_size=4)[0]
        return kid_projections(extract(drawn, Pixels(1), batch_size=4), bank)

    finetune(CONFIG, sampler, [objective], folder / "checkpoint.pt", on_event, evaluate)
    images = draw(sampler, 10, batch_size=4)[0]
    return {"weights": weights(sampler), "images": images, "told": torch.tensor(told)}


def main(folder):
    torch.set_num_threads(1)
    ranks.join(BATCH)
    found = {**gradients(), **run(folder / "whole"), "bank": make()[2]}
    torch.save(found, folder / f"rank{rank()}.pt")
    ranks.any_of(False)  # both files are there
    try:
        run(folder / "killed", die_at=5)
    except ValueError as error:
        (folder / "error.txt").write_text(f"{time.time()} {error}", encoding="utf-8")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
