"""Every sampler by its name: calls counted, gradients there, errors in one line."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import select_times
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.gamma import Gamma
from mmd_ddm.models.genie_head import GenieHead
from mmd_ddm.samplers.dpm_solver import DPMSolver
from mmd_ddm.samplers.registry import SAMPLERS, make_sampler

TIMES = (999, 750, 500.5, 250, 99)
NFE = {  # at five times that do not end at 0
    **dict.fromkeys(SAMPLERS, 5),
    "s-pndm": 6,
    "f-pndm": 14,
    "heun": 9,
    "genie": 9,
    "dpm-solver-2": 10,
    "dpm-solver-3": 15,
}


class TinyNetwork(nn.Module):
    """A nonlinear network of the image and of the time, in float64."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1).double()
        self.conv_norm_out = nn.Identity()  # before which a head reads the features
        self.out = nn.Conv2d(4, 1, 3, padding=1).double()

    def forward(self, x_t, t):
        time = torch.cos(t.double() / 300)[:, None, None, None]
        return self.out(self.conv_norm_out(torch.tanh(self.conv(x_t) + time)))


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    denoiser = UNet2D(TinyNetwork(), NoiseSchedule.linear(), shape=(1, 4, 4))
    values = tuple(float(1 - abar) for abar in denoiser.schedule.alpha_bar)
    denoiser.beside["gamma"] = Gamma("", "", "", 1, 0, values=values)
    head = denoiser.beside["head"] = GenieHead(1, 4, 2).double().requires_grad_(False)
    nn.init.normal_(head.conv_out.weight, std=0.1)
    return denoiser


def draw(sampler, n=2):
    """x_T, and noise where the sampler wants it."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(sampler.draws, n, 1, 4, 4, generator=generator, dtype=torch.float64)
    return z[0], z[1:] if sampler.stochastic else None


@pytest.mark.parametrize("name", SAMPLERS)
def test_network_calls_are_counted(name, denoiser):
    calls = []
    denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    sampler = make_sampler(name, denoiser, TIMES)
    with torch.no_grad():
        sample = sampler(*draw(sampler))
    assert sampler.nfe == len(calls) == NFE[name]
    assert not sample.requires_grad
    assert sample.isfinite().all()


@pytest.mark.parametrize(("name", "nfe"), [("dpm-solver-2", 9), ("dpm-solver-3", 13)])
def test_dpm_solver_takes_order_1_from_time_0(name, nfe, denoiser):
    sampler = make_sampler(name, denoiser, (800, 600, 400, 200, 0))
    sampler(*draw(sampler))
    assert sampler.nfe == nfe


def slope_of_the_sum(sampler, x_t, noise):
    """The gradient of the sum of the sample, to x_T and to the weights."""
    x_t = x_t.clone().requires_grad_()
    parameters = list(sampler.denoiser.parameters())
    return torch.autograd.grad(sampler(x_t, noise).sum(), [x_t, *parameters])


@pytest.mark.parametrize("name", SAMPLERS)
def test_gradient_is_there_though_x_0_is_clamped(name, denoiser):
    sampler, free = (make_sampler(name, denoiser, TIMES, clip=clip) for clip in (True, False))
    with torch.no_grad():
        clamped, unclamped = (each(*draw(each)).abs().max() for each in (sampler, free))
    assert clamped < 10 < unclamped
    gradient = slope_of_the_sum(sampler, *draw(sampler))
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradient)


@pytest.mark.parametrize("name", SAMPLERS)
def test_gradient_is_that_of_finite_differences(name, denoiser):
    sampler = make_sampler(name, denoiser, TIMES)
    x_t, noise = draw(sampler)
    by_backward = slope_of_the_sum(sampler, x_t, noise)
    generator = torch.Generator().manual_seed(2)
    tensors = [x_t, *denoiser.parameters()]
    ways = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in tensors]
    for i, (slope, way) in enumerate(zip(by_backward, ways, strict=True)):
        ends = []
        for h in (1e-6, -1e-6):
            with torch.no_grad():
                tensors[i] += h * way
                ends.append(sampler(x_t, noise).sum().item())
                tensors[i] -= h * way
        by_difference = (ends[0] - ends[1]) / 2e-6
        assert (slope * way).sum().item() == pytest.approx(by_difference, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_recomputation_changes_nothing(name, denoiser):
    kept = make_sampler(name, denoiser, TIMES)
    recomputed = make_sampler(name, denoiser, TIMES, recompute=True)
    x_t, noise = draw(kept)
    torch.testing.assert_close(
        slope_of_the_sum(recomputed, x_t, noise), slope_of_the_sum(kept, x_t, noise)
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 17])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "log-snr", "karras"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_any_number_of_steps_or_an_error_that_says_how_many(name, spacing, steps, denoiser):
    times = select_times(spacing, steps, 1000, denoiser.schedule, truncated=True)
    least = {"s-pndm": 2, "f-pndm": 4, "fastdpm-var": 2, "fastdpm-var-quadratic": 2}.get(name, 1)
    if steps < least:
        with pytest.raises(ValueError, match=f"needs at least {least} steps; got {steps}"):
            make_sampler(name, denoiser, times)
        return
    sampler = make_sampler(name, denoiser, times)
    with torch.no_grad():
        assert sampler(*draw(sampler)).isfinite().all()


def test_an_unknown_name_lists_the_choices(denoiser):
    with pytest.raises(
        ValueError, match="unknown sampler 'euler'; choose one of ddim, ddpm-small"
    ):
        make_sampler("euler", denoiser, TIMES)


@pytest.mark.parametrize("name", SAMPLERS)
def test_eta_is_taken_or_refused(name, denoiser):
    if name.endswith("ddim") or name.startswith("fastdpm"):
        assert make_sampler(name, denoiser, TIMES, eta=0.5).eta == 0.5
        return
    with pytest.raises(ValueError, match=re.escape(f"{name} has no eta; got 0.5 (with eta: ddim")):
        make_sampler(name, denoiser, TIMES, eta=0.5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_order_is_taken_or_refused(name, denoiser):
    highest = {"ipndm": 4, "deis": 4, "unipc": 3}.get(name)
    if highest:
        chosen = [make_sampler(name, denoiser, TIMES, order=k).order for k in range(highest + 1)]
        assert chosen == [2, *range(1, highest + 1)]
        assert make_sampler(name, denoiser, range(7, -1, -1)).order == highest
        assert make_sampler(name, denoiser, range(6, -1, -1)).order == 2
        with pytest.raises(ValueError, match=f"has orders 1 to {highest}, and 0 for its own"):
            make_sampler(name, denoiser, TIMES, order=highest + 1)
        return
    refused = f"{name} has no order; got 3 (with order: ipndm, unipc, deis)"
    with pytest.raises(ValueError, match=re.escape(refused)):
        make_sampler(name, denoiser, TIMES, order=3)


@pytest.mark.parametrize("name", ["ipndm", "deis", "unipc"])
def test_the_order_that_was_chosen_decides_what_is_drawn(name, denoiser):
    own, second, first = (make_sampler(name, denoiser, TIMES, order=k) for k in (0, 2, 1))
    with torch.no_grad():
        samples = [sampler(*draw(sampler)) for sampler in (own, second, first)]
        ddim = make_sampler("ddim", denoiser, TIMES)(*draw(own))
    torch.testing.assert_close(samples[0], samples[1], rtol=0, atol=0)
    if name != "unipc":  # which corrects at order 1 as well
        torch.testing.assert_close(samples[2], ddim, rtol=1e-9, atol=1e-9)
    assert (samples[0] - samples[2]).abs().max() > 1e-3
    assert own.fingerprint == second.fingerprint != first.fingerprint


def test_orders_that_do_not_exist(denoiser):
    with pytest.raises(ValueError, match="orders 1, 2 and 3; got 4"):
        DPMSolver(denoiser, TIMES, order=4)
    with pytest.raises(ValueError, match="orders 2 and 3; got 1"):
        SAMPLERS["dpm-solver++-2m"](denoiser, TIMES, order=1)


def test_the_names_come_without_diffusers():
    code = "import sys, mmd_ddm.samplers.registry; sys.exit('diffusers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
