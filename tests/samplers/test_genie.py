"""GENIE's derivative: along the flow, of every kind of prediction, through attention."""

import pytest
import torch
from gaussian import VARIANCE, GaussianDenoiser, noise

from mmd_ddm.models.families.unet2d import PREDICTIONS, UNet2D
from mmd_ddm.models.genie_head import derivative
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.registry import make_sampler


@pytest.mark.parametrize("t", [0, 1, 77.25, 500, 998])
def test_slope_is_the_taylor_polynomial_of_the_exact_flow(t):
    """Along the flow eps is c rho / sqrt(v + rho^2), with c = x / alpha / sqrt(v + rho^2)."""
    denoiser, x = GaussianDenoiser(), noise()
    rho, alpha_t = denoiser.schedule.rho(t), denoiser.schedule(t)[0]
    spread = VARIANCE + rho**2
    eps, change = x / alpha_t * rho / spread, x / alpha_t * VARIANCE / spread**2
    slope = make_sampler("genie", denoiser, (999, t)).slope(x, t, None, Walk(denoiser, False))
    torch.testing.assert_close(slope, eps - rho / 2 * change, rtol=1e-9, atol=1e-12)


def test_the_first_step_is_ddims():
    denoiser, x = GaussianDenoiser(), noise()
    genie, ddim = (make_sampler(name, denoiser, (999, 500)) for name in ("genie", "ddim"))
    ends = [s.step(x, 999, 500, Walk(denoiser, False), None) for s in (genie, ddim)]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_derivative_of_a_network_with_attention(prediction, tiny_unet, schedule):
    denoiser = UNet2D(tiny_unet().double(), schedule, prediction, shape=(1, 8, 8))
    x_t, dx = torch.randn(
        2, 3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    t, h = 20.5, 0.02  # the network takes its times in float32
    with torch.no_grad():
        got = derivative(denoiser, x_t, t, dx, 1.0)
        ends = [denoiser.eps(x_t + way * dx, t + way) for way in (h, -h, 2 * h, -2 * h)]
    expected = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_derivative_is_exact_also_under_autocast(denoiser):
    x_t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = derivative(denoiser, x_t, 500, x_t, 0.1)
    denoiser.autocast = torch.bfloat16
    torch.testing.assert_close(derivative(denoiser, x_t, 500, x_t, 0.1), expected)
    assert denoiser.autocast is torch.bfloat16
    loss = make_sampler("genie", denoiser, (800, 400), recompute=True)(x_t).square().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in denoiser.network.parameters())


def test_coefficients_of_many_times_are_the_schedules(denoiser64):
    times = torch.tensor([0, 0.5, 77.25, 500, 998.75, 999], dtype=torch.float64)
    got = torch.stack(denoiser64.coefficients(times), 1).flatten(1)
    expected = torch.tensor([denoiser64.schedule(float(t)) for t in times], dtype=torch.float64)
    torch.testing.assert_close(got[1:], expected[1:], rtol=1e-12, atol=0)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=0)
