"""Which steps of the chain take a gradient (``chain.backward``), in the loop."""

from dataclasses import replace

import pytest
import torch
from small_net import SmallNet
from torch import nn

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.random import generator
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune, trained_steps
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective

CONFIG = FinetuneConfig(iterations=1, batch_size=4, lr=1e-2, ema_decay=0.0)


@pytest.mark.parametrize(
    ("backward", "found"),
    [("all", None), ("last-5", None), ("random-7", None), ("last-2", [3, 4]), ("last-1", [4])],
)
def test_the_steps_that_are_trained(backward, found):
    assert trained_steps(replace(CONFIG, chain=ChainConfig(backward=backward)), 5, 0) == found


@pytest.mark.parametrize("backward", ["", "last", "last-0", "first-2", "random-x", "all-1"])
def test_others_are_refused_by_name(backward):
    with pytest.raises(ValueError, match=f"all, last-N or random-N.*got '{backward}'"):
        ChainConfig(backward=backward)


def test_random_steps_are_others_every_time_and_all_in_turn():
    config = replace(CONFIG, chain=ChainConfig(backward="random-2"))
    found = [tuple(trained_steps(config, 5, step)) for step in range(200)]
    assert found == [tuple(trained_steps(config, 5, step)) for step in range(200)]
    assert found != [tuple(trained_steps(replace(config, seed=1), 5, s)) for s in range(200)]
    assert len(set(found)) == 10  # of 5 choose 2
    counts = torch.tensor([steps for pair in found for steps in pair]).bincount()
    assert counts.min() > 50


def make():
    """A sampler of a fresh network, always the same, and an objective."""
    torch.manual_seed(0)
    denoiser = UNet2D(SmallNet(), NoiseSchedule.linear(), shape=(1, 8, 8))
    real = torch.rand((20, 1, 8, 8), generator=torch.Generator().manual_seed(1)) - 0.8
    bank = nn.functional.adaptive_avg_pool2d(real, 7).flatten(1)
    objective = Objective.over(Pixels(1), bank, Polynomial(), standardise=False)
    return make_sampler("ddim", denoiser, (600, 200)), objective


def ignore(**event):
    pass


def test_a_resumed_run_takes_the_same_random_steps(tmp_path):
    config = replace(CONFIG, iterations=6, chain=ChainConfig(backward="random-1"))
    found = []
    for iterations in ((6,), (3, 6)):
        for some in iterations:
            sampler, objective = make()
            path = tmp_path / f"{len(iterations)}"
            finetune(replace(config, iterations=some), sampler, [objective], path, ignore)
        found.append([p.detach() for p in sampler.denoiser.network.parameters()])
    assert all(map(torch.equal, *found))


def test_the_loop_follows_the_gradient_of_the_last_step(tmp_path):
    """The first move of Adam is the sign of the gradient."""
    sampler, objective = make()
    draw = generator(CONFIG.seed, 0, 0, "finetune")
    x_T = torch.randn((1, 4, 1, 8, 8), generator=draw)[0]
    weights = list(sampler.denoiser.network.parameters())
    before = [p.detach().clone() for p in weights]
    sampler.trained_steps = [1]
    gradients = torch.autograd.grad(mmd_step(sampler, [objective], x_T), weights)
    config = replace(CONFIG, chain=ChainConfig(backward="last-1"))
    finetune(config, sampler, [objective], tmp_path / "c", ignore)
    for old, new, gradient in zip(before, weights, gradients, strict=True):
        moved = gradient.abs() > 1e-5
        assert moved.any()
        assert torch.equal((new - old).sign()[moved], -gradient.sign()[moved])
