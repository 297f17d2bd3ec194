"""Consistency tuning and distillation on a Gaussian whose exact denoiser is known."""

import pytest
import torch
from gaussian import SHAPE, VARIANCE, GaussianDenoiser, PerTime, noise
from torch.testing import assert_close

from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.losses.consistency import consistency_loss, neighbours, next_level

LEVELS = torch.logspace(-2, 1.9, 200, dtype=torch.float64)


def test_the_levels_of_tuning_go_from_the_data_to_the_next():
    assert bool((next_level(LEVELS, 0)[LEVELS < 1.9] == 0).all())  # denoising
    for stage in range(8):
        assert bool((next_level(LEVELS, stage) <= next_level(LEVELS, stage + 1)).all())
    assert_close(next_level(LEVELS, 40), LEVELS)
    rho, q, k = 3.0, 4.0, 8.0
    one = next_level(torch.tensor([rho]), 1, q)
    n = 1 + k / (1 + torch.tensor(rho).exp())
    assert_close(one, (rho * (1 - n / q**2))[None])


def test_neighbours_lie_on_karras_grid():
    draw = torch.Generator().manual_seed(0)
    rho, r = neighbours(0.01, 80.0, 18, draw, 500)
    found = torch.cat([rho, r]).unique()
    assert len(found) == 18
    roots = found[1:] ** (1 / 7)
    assert_close(roots.diff(), roots.diff().mean().expand(16), rtol=1e-4, atol=0)
    assert_close(found[[0, -1]], torch.tensor([0.0, 80.0]), rtol=1e-4, atol=0)


def slope_to_weight(slope, rho):
    """The weight of the exact eps under which x_0 is slope times x_t / alpha_t."""
    return (1 - slope) * (VARIANCE + rho**2) / rho**2


def times_of(denoiser, levels):
    return denoiser.schedule.time_of(-torch.tensor(levels).double().log().numpy()).tolist()


def test_tuning_is_least_for_the_slope_that_is_known():
    """The posterior mean of what f says at r, among linear students."""
    rho, r = 1.3, 0.6
    student = PerTime(times_of(GaussianDenoiser(), [rho, r]))
    chain, n = make_sampler("ddim", student, (900, 500, 100)), 4000
    x_0, z = VARIANCE**0.5 * noise(n), noise(n, seed=1)
    at = torch.full((n,), rho, dtype=torch.float64)

    def loss(slope, lower):
        with torch.no_grad():
            student.network.weights[0] = slope_to_weight(slope, rho)
            return float(consistency_loss(chain, x_0, z, at, lower).mean())

    of_r = VARIANCE / (VARIANCE + r**2)  # the exact network's x_0 at r
    for lower, right in (
        (torch.zeros_like(at), VARIANCE / (VARIANCE + rho**2)),
        (torch.full_like(at, r), of_r * (VARIANCE + rho * r) / (VARIANCE + rho**2)),
    ):
        found = [loss(right * factor, lower) for factor in (0.9, 1.0, 1.1)]
        assert found[1] < min(found[0], found[2])


def test_the_weight_and_the_norm_are_those_of_plain_loops():
    student = PerTime([999])
    chain = make_sampler("ddim", student, (900, 100))
    x_0, z, rho = noise(3), noise(3, seed=1), torch.tensor([0.3, 1.0, 9.0], dtype=torch.float64)
    with torch.no_grad():
        found = consistency_loss(chain, x_0, z, rho, torch.zeros_like(rho))
    for i in range(3):
        x_ve = x_0[i] + rho[i] * z[i]
        distance = (VARIANCE / (VARIANCE + rho[i] ** 2) * x_ve - x_0[i]).square().sum().sqrt()
        assert_close(found[i], (1 / rho[i] ** 2 + 4) * distance, rtol=1e-6, atol=0)


def test_distillation_rests_at_the_product_of_the_teachers_steps():
    """A student that ends where DDIM on the grid ends has no loss, at every level; one call then
    draws what the whole chain does.
    """
    base = GaussianDenoiser()
    grid = [0.05, 0.4, 2.0, 20.0]
    times = times_of(base, grid)
    student, chain_of_all, slope = PerTime(times), [], 1.0
    for i, rho in enumerate(grid):
        lower = grid[i - 1] if i else 0.0
        slope *= (VARIANCE + rho * lower) / (VARIANCE + rho**2)  # a step of DDIM in x_t / alpha_t
        student.network.weights.data[i] = slope_to_weight(slope, rho)
        chain_of_all.insert(0, times[i])
    chain = make_sampler("ddim", student, chain_of_all)
    rho, r = (torch.tensor(x, dtype=torch.float64) for x in (grid, [0.0, *grid[:-1]]))
    teacher = make_sampler("ddim", base, chain_of_all)
    with torch.no_grad():
        loss = consistency_loss(chain, noise(4), noise(4, seed=1), rho, r, teacher)
        one, all_ = make_sampler("ddim", student, times[-1:]), teacher
        assert loss.max() < 1e-6
        assert_close(one(noise()), all_(noise()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 3])
def test_re_noising_is_what_it_says(steps):
    chain = make_sampler("consistency", GaussianDenoiser(), (999, 666, 333)[:steps])
    z = torch.randn(chain.draws, 2, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    x = z[0]
    for i, t in enumerate(chain.times):
        x_0 = chain.denoiser.predict(x, t)[0]
        alpha, sigma = chain.schedule(chain.times[i + 1] if i + 1 < steps else None)
        x = alpha * x_0 + sigma * z[1 + i]
    assert_close(chain(z[0], z[1:]), x)
