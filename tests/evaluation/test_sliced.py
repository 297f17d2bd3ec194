"""The sliced Wasserstein distance: scipy's along every line, closed forms, its error."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch.nn.functional import normalize

from mmd_ddm.evaluation.metrics import sliced_wasserstein
from mmd_ddm.maths.random import generator


def draw(n, d, seed, *, mean=0.0, scale=1.0):
    made = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn((n, d), generator=made, dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 47), (2, 90)])
def test_along_a_line_it_is_scipys(n, m):
    x, y = draw(n, 1, 0, mean=0.4, scale=1.3), draw(m, 1, 1)
    expected = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert sliced_wasserstein(x, y)[0] == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(y, x)[0] == pytest.approx(expected, rel=1e-12)


def test_it_is_the_mean_over_the_named_directions():
    x, y = draw(25, 6, 0, scale=0.5), draw(34, 6, 1)
    theta = normalize(
        torch.randn((70, 6), generator=generator(0, 0, 0, "directions"), dtype=torch.float64)
    )
    lines = [wasserstein_distance((x @ t).numpy(), (y @ t).numpy()) for t in theta]
    found, _ = sliced_wasserstein(x.float(), y.float(), directions=70)
    assert found == pytest.approx(sum(lines) / 70, rel=1e-6)


def test_shifted_gaussians_have_a_closed_form():
    """W_1 of a shift s is |theta . s|; its mean, |s| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2))."""
    d = 5
    shift = torch.full((d,), 2.0, dtype=torch.float64)
    x = draw(800, d, 0)
    mean = math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    expected = float(shift.norm()) * mean
    exact, se_exact = sliced_wasserstein(x + shift, x, directions=3000)
    assert exact == pytest.approx(expected, rel=0.04)  # of the directions alone
    found, se = sliced_wasserstein(draw(600, d, 1) + shift, x, directions=3000)
    assert abs(found - expected) < 4 * se + 0.04 * expected
    assert 0 < se < 0.1 * expected
    assert se_exact < se


def test_the_error_is_that_of_other_samples():
    found = [
        sliced_wasserstein(draw(60, 3, 2 * i, mean=0.8), draw(90, 3, 2 * i + 1)) for i in range(60)
    ]
    values, errors = torch.tensor(found).T
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.25)


def test_equal_sets_have_no_distance_and_no_error():
    x = draw(20, 4, 0)
    for same in (x.flip(0), torch.cat([x, x])):
        assert sliced_wasserstein(x, same) == pytest.approx((0, 0), abs=1e-12)


def test_it_scales_with_the_features_and_repeats():
    x, y = draw(20, 4, 0), draw(30, 4, 1, mean=1)
    found, se = sliced_wasserstein(x, y)
    assert sliced_wasserstein(x, y) == (found, se)
    assert sliced_wasserstein(3 * x, 3 * y) == pytest.approx((3 * found, 3 * se), rel=1e-9)
    assert sliced_wasserstein(y[:, [0, 1, 2, 3]], x)[0] == pytest.approx(found, rel=1e-9)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least 2 vectors in a set; got 1"):
        sliced_wasserstein(draw(1, 2, 0), draw(9, 2, 1))
    with pytest.raises(ValueError, match="different dimensions, 2 and 3"):
        sliced_wasserstein(draw(4, 2, 0), draw(9, 3, 1))
