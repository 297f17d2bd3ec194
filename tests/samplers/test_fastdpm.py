"""FastDPM: its variances, its times, its kappa."""

from math import lgamma, log

import numpy as np
import pytest
import torch
from gaussian import GaussianDenoiser, noise

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.samplers.fastdpm import variance_times
from mmd_ddm.samplers.registry import make_sampler

SCHEDULE = NoiseSchedule.linear()


def variances(times):
    """The eta_i of a short process that has the schedule's abar at these times."""
    abar = np.array([SCHEDULE.abar(t) for t in times[::-1]])
    return 1 - abar / np.append(1.0, abar[:-1])


@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_linear_variances_are_equally_spaced(steps):
    times = variance_times(SCHEDULE, "linear", steps)
    assert times[0] == 999
    assert times[-1] == 0
    eta = variances(times)
    np.testing.assert_allclose(eta, np.linspace(1e-4, eta[-1], steps), rtol=1e-6)


@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_quadratic_variances_have_equally_spaced_roots(steps):
    times = variance_times(SCHEDULE, "quadratic", steps)
    assert times[0] == 999
    assert times[-1] == 0
    root = np.sqrt(variances(times))
    np.testing.assert_allclose(root, np.linspace(0.01, root[-1], steps), rtol=1e-6)


@pytest.mark.parametrize("rule", ["linear", "quadratic"])
def test_times_are_those_of_the_papers_gamma_functions(rule):
    step = (0.02 - 1e-4) / 999
    c = (1 - 1e-4) / step

    def log_gbar(t):
        return (t + 1) * log(step) + lgamma(c + 1) - lgamma(c - t)

    assert log_gbar(500) == pytest.approx(log(SCHEDULE.abar(500)), abs=1e-9)
    for t in variance_times(SCHEDULE, rule, 7):
        # The paper's time of the same gbar, by bisection.
        low, high = -0.5, 999.5
        for _ in range(60):
            middle = (low + high) / 2
            noisier = log_gbar(middle) < log(SCHEDULE.abar(t))
            low, high = (low, middle) if noisier else (middle, high)
        assert t == pytest.approx(middle, abs=0.03)


@pytest.mark.parametrize(
    ("name", "rule"), [("fastdpm-var", "linear"), ("fastdpm-var-quadratic", "quadratic")]
)
def test_var_is_ddim_at_its_own_times(name, rule):
    denoiser = GaussianDenoiser()
    sampler = make_sampler(name, denoiser, (3, 2, 1, 0), eta=1.0)
    assert sampler.times == tuple(variance_times(denoiser.schedule, rule, 4))
    x, z = noise(), torch.stack([noise(seed=i) for i in range(1, 5)])
    expected = make_sampler("ddim", denoiser, sampler.times, eta=1.0)(x, z)
    torch.testing.assert_close(sampler(x, z), expected, rtol=0, atol=0)


def test_errors():
    with pytest.raises(ValueError, match="at least 2 steps; got 1"):
        make_sampler("fastdpm-var", GaussianDenoiser(), (500,))
    with pytest.raises(ValueError, match="unknown variances 'cubic'; choose one of linear"):
        variance_times(SCHEDULE, "cubic", 5)
