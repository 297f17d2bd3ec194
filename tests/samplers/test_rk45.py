"""The probability flow by scipy's RK45, against its closed form on a Gaussian."""

from math import atan

import pytest
import torch
from gaussian import VARIANCE, GaussianDenoiser, noise
from scipy.integrate import solve_ivp
from torch.testing import assert_close

from mmd_ddm.maths.continuous import FlowSchedule, SigmaSchedule
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.samplers.rk45 import RK45


@pytest.mark.parametrize(
    ("schedule", "first"), [(None, 999), (SigmaSchedule(), 80), (FlowSchedule(), 990)]
)
@torch.no_grad()
def test_it_ends_where_the_flow_does(schedule, first):
    denoiser = GaussianDenoiser(schedule)
    last = denoiser.schedule.last
    sampler = make_sampler("rk45", denoiser, [first])
    x = noise(3)
    exact = denoiser.flow(sampler.begin(x), first, last)
    assert_close(sampler(x), denoiser.predict(exact, last)[0], rtol=0, atol=1e-3)
    assert 20 < sampler.nfe < 100
    errors = []
    for tolerance in (1e-3, 1e-6):
        found = RK45(denoiser, [first], tolerance=tolerance)(x)
        errors.append((found - denoiser.predict(exact, last)[0]).abs().max())
    assert errors[1] < 0.1 * errors[0]


@torch.no_grad()
def test_its_calls_are_scipys_and_one_for_the_image():
    denoiser, x, tolerance = GaussianDenoiser(), noise(1), 1e-5
    sampler = RK45(denoiser, [999], tolerance=tolerance)
    sampler(x)
    ends = [atan(denoiser.schedule.rho(t)) for t in (999, 0)]

    def drift(theta, u):
        c, s = torch.tensor(theta).cos(), torch.tensor(theta).sin()
        return float((1 - VARIANCE) * s * c / (VARIANCE * c**2 + s**2)) * u

    found = solve_ivp(drift, ends, x.numpy().ravel(), rtol=tolerance, atol=tolerance)
    assert sampler.nfe == found.nfev + 1


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch_nor_on_times_between():
    denoiser, x = GaussianDenoiser(), noise(3)
    sampler = make_sampler("rk45", denoiser, [999])
    assert_close(sampler(x)[:1], sampler(x[:1]), rtol=0, atol=0)
    assert_close(make_sampler("rk45", denoiser, [999, 400, 0])(x), sampler(x), rtol=0, atol=1e-4)


def test_it_is_not_trained_through():
    with pytest.raises(ValueError, match="cannot be trained through"):
        make_sampler("rk45", GaussianDenoiser(), [999])(noise())
