"""The MMD against double loops, closed forms, torch-fidelity, and over replicates."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kernel_mmd

from mmd_ddm.maths.kernels import Gaussian, Linear, Polynomial
from mmd_ddm.maths.mmd import (
    cross,
    landmark_weights,
    mmd2,
    mmd2_projections,
    off_diagonal_sums,
    within,
)

KERNELS = [Linear(), Polynomial(), Gaussian(), Gaussian(sigma=0.8)]


def draw(n: int, d: int, seed: int, *, mean: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn((n, d), generator=generator, dtype=torch.float64)


@pytest.fixture
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    return draw(5, 3, 0), draw(7, 3, 1, mean=0.5, scale=1.5)


def naive_mmd2(x, y, kernel, *, unbiased: bool) -> float:
    def k(a, b) -> float:
        return float(kernel(a[None], b[None]))

    def mean_within(z) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j or not unbiased]
        return sum(k(z[i], z[j]) for i, j in pairs) / len(pairs)

    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    return mean_within(x) - 2 * between + mean_within(y)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_mmd2_equals_a_double_loop(kernel, unbiased, sets):
    value = mmd2(*sets, kernel, unbiased=unbiased)
    assert float(value) == pytest.approx(naive_mmd2(*sets, kernel, unbiased=unbiased), rel=1e-11)


def test_cubic_mmd2_is_torch_fidelitys_kid():
    x, y = draw(30, 4, 2), draw(30, 4, 3, mean=0.3)  # torch-fidelity needs equal counts
    assert float(mmd2(x, y, Polynomial())) == pytest.approx(
        float(kernel_mmd(x.numpy(), y.numpy())), rel=1e-12
    )


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradient_equals_finite_differences(kernel, unbiased, sets):
    x, y = (s.clone().requires_grad_() for s in sets)
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, kernel, unbiased=unbiased), (x, y))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_order_and_side_do_not_matter(kernel, sets):
    x, y = sets
    value = float(mmd2(x, y, kernel))
    assert float(mmd2(x.flip(0), y[torch.randperm(7)], kernel)) == pytest.approx(value, rel=1e-11)
    assert float(mmd2(y, x, kernel)) == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_biased_mmd2_is_a_squared_distance(kernel, sets):
    x, y = sets
    assert float(mmd2(x, x, kernel, unbiased=False)) == pytest.approx(0, abs=1e-12)
    assert mmd2(x, y, kernel, unbiased=False) > 0


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_unbiased_is_zero_on_average_between_draws_of_one_distribution(kernel):
    values, biased = [], []
    for seed in range(0, 300, 2):
        x, y = draw(4, 2, seed), draw(6, 2, seed + 1)
        values.append(float(mmd2(x, y, kernel)))
        biased.append(float(mmd2(x, y, kernel, unbiased=False)))
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.mean(biased) > 5 * error  # the same test tells the other estimator apart


@pytest.mark.parametrize("kernel", [Polynomial(), Gaussian()], ids=repr)
def test_unbiased_mean_does_not_depend_on_the_counts(kernel):
    def mean_and_error(n: int, m: int) -> tuple[float, float]:
        pairs = ((draw(n, 2, s), draw(m, 2, s + 1, mean=0.5)) for s in range(0, 400, 2))
        values = [float(mmd2(x, y, kernel)) for x, y in pairs]
        return float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))

    (few, few_error), (many, many_error) = mean_and_error(3, 4), mean_and_error(12, 20)
    assert abs(few - many) < 3 * math.hypot(few_error, many_error)
    assert many > 5 * many_error


def test_linear_mmd2_is_the_distance_of_means(sets):
    x, y = sets
    expected = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    assert float(mmd2(x, y, Linear(), unbiased=False)) == pytest.approx(expected, rel=1e-12)


def test_linear_mmd2_between_gaussians_has_its_closed_form():
    """E of the unbiased value is ||mu_x - mu_y||^2 = 3 * 0.4^2, whatever the covariances."""
    x, y = draw(3000, 3, 4, scale=0.5), draw(2000, 3, 5, mean=0.4, scale=2.0)
    error = mmd2_projections(x, y, Linear()).se
    assert abs(float(mmd2(x, y, Linear())) - 3 * 0.4**2) < 3 * error < 0.4


def test_gaussian_mmd2_between_gaussians_has_its_closed_form():
    """E k of two isotropic Gaussians: (s2 / (s2 + v))^(d/2) exp(-|dmu|^2 / (2 (s2 + v)))."""
    d, mean, a, b, sigma = 2, 0.7, 0.6, 1.3, 0.9
    x, y = draw(1500, d, 6, scale=a), draw(1000, d, 7, mean=mean, scale=b)

    def expected_k(variance: float, distance2: float) -> float:
        total = sigma**2 + variance
        return (sigma**2 / total) ** (d / 2) * math.exp(-distance2 / (2 * total))

    expected = (
        expected_k(2 * a**2, 0)
        - 2 * expected_k(a**2 + b**2, d * mean**2)
        + expected_k(2 * b**2, 0)
    )
    kernel = Gaussian(sigma=sigma)
    error = mmd2_projections(x, y, kernel).se
    assert abs(float(mmd2(x, y, kernel)) - expected) < 3 * error < 0.2 * expected


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_known_constant_gives_the_same_value_and_gradient(kernel, unbiased, sets):
    x, y = sets
    x.requires_grad_()
    constant = float(within(y, kernel, unbiased=unbiased))
    with_constant = mmd2(x, y, kernel, unbiased=unbiased, constant=constant)
    without = mmd2(x, y, kernel, unbiased=unbiased)
    assert torch.allclose(with_constant, without, rtol=1e-12)
    gradients = [torch.autograd.grad(value, x)[0] for value in (with_constant, without)]
    assert torch.allclose(*gradients, rtol=1e-12)
    shifted = mmd2(x, y, kernel, unbiased=unbiased, constant=constant + 1)
    assert float((shifted - without).detach()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_block_size_changes_nothing(kernel, block, sets):
    x, y = sets
    k_xx, k_xy = kernel(x, x), kernel(x, y)
    off_diagonal = (k_xx.sum() - k_xx.trace()) / 20
    assert torch.allclose(cross(x, y, kernel, block=block), k_xy.mean(), rtol=1e-12)
    assert torch.allclose(within(x, kernel, block=block), off_diagonal, rtol=1e-11)
    biased = within(x, kernel, unbiased=False, block=block)
    assert torch.allclose(biased, k_xx.mean(), rtol=1e-12)
    x = x.clone().requires_grad_()
    values = cross(x, y, kernel, block=block), cross(x, y, kernel)
    gradients = [torch.autograd.grad(value, x)[0] for value in values]
    assert torch.allclose(*gradients, rtol=1e-11)
    found, whole = mmd2_projections(x, y, kernel, block=block), mmd2_projections(x, y, kernel)
    assert found.value == pytest.approx(float(mmd2(*sets, kernel)), rel=1e-11)
    assert found.se == pytest.approx(whole.se, rel=1e-11)


def dense_sums(x, kernel):
    """Without the diagonal, from one dense matrix in float64."""
    k = kernel(x.double(), x.double())
    return (k * (1 - torch.eye(len(x)).double())).sum(1)


def sums_and_gradient(sums_of, x):
    """The sums, and the gradient of their squares, in which every row has another weight."""
    x = x.clone().requires_grad_()
    sums = sums_of(x)
    return sums.detach(), torch.autograd.grad(sums.square().sum(), x)[0]


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("block", [7, 10, 23, 100])
@pytest.mark.parametrize("kernel", [*KERNELS, Gaussian(sigma=5.0)], ids=repr)
def test_off_diagonal_sums_are_the_dense_ones(kernel, block, dtype):
    """Of 23 vectors, three of them equal; in float32 the Gaussian's k(x, x) is not exactly 1."""
    x = draw(23, 6, 8, mean=1.0, scale=1.7).to(dtype)
    x[11] = x[20] = x[2]
    assert dtype == torch.float64 or bool((Gaussian(sigma=0.8)(x, x).diagonal() < 1).any())
    found = sums_and_gradient(lambda x: off_diagonal_sums(x, kernel, block), x)
    expected = sums_and_gradient(lambda x: dense_sums(x, kernel), x.double())
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5
    assert relative(found[0], expected[0]) < tolerance
    assert relative(found[1], expected[1]) < tolerance


@pytest.mark.parametrize("block", [3, 100])
def test_sums_far_below_the_diagonal_keep_their_digits(block):
    """k is about 1e-12 off the diagonal, where float32 holds 1 + 1e-12 = 1."""
    x, kernel = 5.3 * torch.eye(8), Gaussian(sigma=1.0)
    found = sums_and_gradient(lambda x: off_diagonal_sums(x, kernel, block), x)
    expected = sums_and_gradient(lambda x: dense_sums(x, kernel), x.double())
    assert 1e-12 < float(expected[0].max()) < 1e-11
    assert relative(found[0], expected[0]) < 1e-5
    assert relative(found[1], expected[1]) < 1e-5


@pytest.mark.parametrize(("n", "m"), [(20, 500), (500, 20), (300, 300)])
def test_what_the_backward_pass_keeps_does_not_grow_with_the_blocks(n, m):
    x, y, kept = draw(n, 3, 9).requires_grad_(), draw(m, 3, 10), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        cross(x, y, Gaussian(), block=10) + within(x, Gaussian(), block=10)
    assert max(kept) <= 3 * max(n, m)  # vectors, but no block of kernel values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "n", "m"),
    [(Linear(), 20, 150), (Polynomial(), 20, 150), (Polynomial(), 150, 20), (Gaussian(), 15, 90)],
)
def test_standard_error_is_the_spread_over_replicates(kernel, n, m):
    """Asymmetric counts and spreads, so that no side can stand in for the other."""
    values, errors = [], []
    for seed in range(0, 500, 2):
        x, y = draw(n, 3, seed, scale=0.8), draw(m, 3, seed + 1, mean=1.0, scale=1.2)
        values.append(float(mmd2(x, y, kernel)))
        errors.append(mmd2_projections(x, y, kernel).se)
    assert 0.85 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 1.2


def test_standard_error_is_not_too_small_between_equal_distributions():
    """There the first order vanishes; the estimate must err on the safe side."""
    pairs = [(draw(50, 3, s), draw(50, 3, s + 1)) for s in range(0, 400, 2)]
    values = [float(mmd2(x, y, Polynomial())) for x, y in pairs]
    errors = [mmd2_projections(x, y, Polynomial()).se for x, y in pairs]
    assert 1 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 2


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1)])
def test_one_vector_is_refused_by_the_unbiased_estimator(n, m):
    with pytest.raises(ValueError, match="at least 2 vectors in a set; got 1"):
        mmd2(draw(n, 3, 0), draw(m, 3, 1), Polynomial())
    assert mmd2(draw(n, 3, 0), draw(m, 3, 1), Polynomial(), unbiased=False) > 0


def test_one_vector_of_a_known_set_is_enough():
    x, y = draw(4, 3, 0), draw(1, 3, 1)
    assert float(mmd2(x, y, Linear(), constant=2.0)) == pytest.approx(
        float(within(x, Linear()) - 2 * cross(x, y, Linear()) + 2)
    )


# Landmarks


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_weights_are_those_of_repeated_rows(kernel, sets):
    """A row of weight 2/8 is that row twice in a set of eight."""
    x, y = sets
    weights = torch.full((7,), 1 / 8, dtype=torch.float64)
    weights[2] = 2 / 8
    twice = torch.cat([y, y[2:3]])
    assert torch.allclose(cross(x, y, kernel, weights=weights), cross(x, twice, kernel))
    assert torch.allclose(
        cross(x, y, kernel, weights=weights, block=3), cross(x, twice, kernel), rtol=1e-12
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_as_many_landmarks_as_vectors_are_exact(kernel, sets):
    x, y = sets
    weights = landmark_weights(y, y.split(2), kernel)
    assert torch.allclose(cross(x, y, kernel, weights=weights), cross(x, y, kernel), rtol=1e-4)


def test_landmarks_come_closer_than_as_many_rows_without_weights():
    """Points near a plane in 6 dimensions: what a cubic kernel sees of them is few-dimensional."""
    y = draw(600, 2, 0) @ draw(2, 6, 1) + 0.01 * draw(600, 6, 2)
    x = (draw(20, 2, 3) @ draw(2, 6, 1)).requires_grad_()

    def gradient(rows, weights=None):
        return torch.autograd.grad(cross(x, rows, Polynomial(), weights=weights), x)[0]

    exact, some = gradient(y), y[:40]
    weighted = gradient(some, landmark_weights(some, y.split(100), Polynomial()))
    assert (weighted - exact).norm() < 0.02 * (gradient(some) - exact).norm()
