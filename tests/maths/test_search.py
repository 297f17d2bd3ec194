"""Searched times: dynamic programming against all paths, and costs with known values."""

from itertools import combinations, pairwise
from math import atan, cos, log

import pytest
import torch
from gaussian import VARIANCE, GaussianDenoiser, noise
from torch.testing import assert_close

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.search import cheapest_path, elbo_costs, straight_costs
from mmd_ddm.maths.times import select_times


@pytest.mark.parametrize("factor", [1.0, 1.15])
@pytest.mark.parametrize("leaps", [1, 2, 4, 10])
def test_the_path_is_the_cheapest_of_all(leaps, factor):
    n = 11
    costs = torch.rand(n, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def price(path):
        return sum(factor**q * float(costs[i, j]) for q, (i, j) in enumerate(pairwise(path)))

    every = ((0, *middle, n - 1) for middle in combinations(range(1, n - 1), leaps - 1))
    assert cheapest_path(costs, leaps, factor) == min(every, key=price)


def test_a_path_needs_states_to_land_on():
    with pytest.raises(ValueError, match="3 states has 1 to 2 leaps; got 3"):
        cheapest_path(torch.ones(3, 3), 3)


def test_the_costs_of_the_bound_are_divergences_of_gaussians():
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) of equal variances, and where its optimum lies."""
    schedule = NoiseSchedule.linear()

    def error(t):
        alpha, sigma = schedule(t)
        return VARIANCE * sigma**2 / (alpha**2 * VARIANCE + sigma**2)

    times = torch.linspace(999, 0, 13).round().tolist()
    snr, errors = (
        torch.tensor([f(t) for t in times], dtype=torch.float64)
        for f in (lambda t: schedule.rho(t) ** -2, error)
    )
    costs = elbo_costs(snr, errors)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = map(schedule, (times[9], times[5]))
    beta = 1 - (alpha_t / alpha_s) ** 2
    variance = beta * sigma_s**2 / sigma_t**2
    exact = alpha_s**2 * beta**2 / sigma_t**4 * error(times[5]) / (2 * variance)
    assert float(costs[5, 9]) == pytest.approx(exact)
    assert [times[i] for i in cheapest_path(costs, 5)] == [999, 333, 250, 166, 83, 0]


def test_straight_costs_are_those_of_ddim():
    denoiser = GaussianDenoiser()
    times, x = [900, 600, 300], noise()
    levels = [*map(denoiser.schedule, times), (1.0, 0.0)]
    states = [denoiser.flow(x, 900, t) / alpha for t, (alpha, _) in zip(
        (*times, None), levels, strict=True)]  # fmt: skip
    slopes = [denoiser(states[i] * levels[i][0], t).detach() for i, t in enumerate(times)]
    rho = torch.tensor([sigma / alpha for alpha, sigma in levels], dtype=torch.float64)
    costs = straight_costs(torch.stack(states), torch.stack([*slopes, slopes[-1]]), rho)
    x_0, eps = denoiser.predict(states[0] * levels[0][0], 900)
    alpha, sigma = levels[2]
    landed = (alpha * x_0 + sigma * eps).detach() / alpha
    assert_close(costs[0, 2], (landed - states[2]).abs().mean())
    assert costs.diag().abs().max() < 1e-12


def test_arctan_keeps_most_variance_of_a_gaussian():
    """Equal steps of arctan(rho / c) keep cos(first) / cos^K(step) of it; other times less."""
    schedule, c = NoiseSchedule.linear(), 0.5

    def kept(times):
        rho = [*map(schedule.rho, times), 0.0]
        return sum(log((c**2 + a * b) / (c**2 + a**2)) for a, b in pairwise(rho))

    times = select_times("arctan", 6, 1000, schedule)
    angle = atan(schedule.rho(999) / c)
    assert times[0] == 999
    assert kept(times) == pytest.approx(log(cos(angle)) + 6 * log(cos(angle / 6)), abs=1e-3)
    for i in range(1, 6):
        for shift in (-15, 15):
            assert kept([*times[:i], times[i] + shift, *times[i + 1 :]]) < kept(times)
