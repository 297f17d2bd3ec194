"""FD and KID against torch-fidelity on the same features, closed forms, and invariances."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from mmd_ddm.evaluation.metrics import Moments, frechet_distance, kid, kid_projections, kid_sums

# Asymmetric counts, more dimensions than vectors, a single dimension.
SIZES = [(40, 60, 6), (60, 40, 6), (12, 30, 20), (9, 7, 20), (50, 50, 1)]


def draw(n, d, seed, *, mean=0.0, scale=1.0):
    """Correlated features, as those of a network are."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((n, d), generator=generator, dtype=torch.float64)
    mix = torch.randn((d, d), generator=generator, dtype=torch.float64) / d**0.5
    return mean + scale * (z @ mix + 0.1 * z.square())


def draw_iid(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 3), generator=generator, dtype=torch.float64)


def white(n, d, seed):
    """A set whose mean is 0 and whose covariance is the identity, exactly."""
    x = draw(n, d, seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov()).mT)


def rotation(d, seed=0):
    return torch.linalg.qr(draw(d, d, seed))[0]


def fidelity_fd(x, y):
    statistics = [fid_features_to_statistics(s) for s in (x, y)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def fidelity_kid(x, y):
    whole = {"kid_subsets": 1, "kid_subset_size": len(x), "verbose": False}
    return kid_features_to_metric(x, y, **whole)["kernel_inception_distance_mean"]


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_fd_is_torch_fidelitys(n, m, d):
    x, y = draw(n, d, 0), draw(m, d, 1, mean=0.4, scale=1.3)
    if d == 1:  # its covariance of one dimension is a bare number
        expected = float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2)
    else:
        expected = fidelity_fd(x, y)
    # Of singular covariances, both take roots of eigenvalues that are zero but for rounding.
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6 if n <= d else 1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_kid_is_torch_fidelitys(mean):
    x, y = draw(45, 7, 0), draw(45, 7, 1, mean=mean)
    assert kid(x, y)[0] == pytest.approx(fidelity_kid(x, y), rel=1e-10)


def test_fd_of_shifted_and_scaled_gaussians_has_its_closed_form():
    x, shift = white(30, 4, 0), torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    scales = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert frechet_distance(x, x + shift) == pytest.approx(5.25, rel=1e-9)
    expected = 5.25 + 0.25 + 0 + 1 + 4  # sum (1 - s_i)^2
    assert frechet_distance(x, white(50, 4, 1) * scales + shift) == pytest.approx(
        expected, rel=1e-9
    )


def test_fd_of_covariances_that_do_not_commute_has_its_closed_form():
    """For 2 x 2 matrices tr (A B)^(1/2) = (tr AB + 2 sqrt(det AB))^(1/2)."""
    roots = [torch.tensor(r, dtype=torch.float64) for r in ([[2, 1], [0, 1]], [[1, 0], [3, 1]])]
    x, y = (white(40, 2, i) @ root for i, root in enumerate(roots))
    a, b = (root.T @ root for root in roots)
    trace_root = ((a @ b).trace() + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    assert frechet_distance(x, y) == pytest.approx(
        float(a.trace() + b.trace() - 2 * trace_root), rel=1e-9
    )


def test_kid_by_hand():
    """d = 1, k = (xy + 1)^3: within 1 and 343, cross (1 + 1 + 27 + 64) / 4."""
    x, y = (torch.tensor([[a], [b]], dtype=torch.float64) for a, b in ((0, 1), (2, 3)))
    assert kid(x, y)[0] == pytest.approx(1 + 343 - 2 * 93 / 4, rel=1e-14)


def test_kids_standard_error_is_its_spread_over_replicates():
    values, errors = [], []
    for seed in range(0, 300, 2):
        value, error = kid(draw_iid(25, seed), draw_iid(80, seed + 1) + 0.8)
        values.append(value)
        errors.append(error)
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 1.25


def test_invariances():
    x, y, turn = draw(30, 5, 0), draw(45, 5, 1, mean=0.5), rotation(5)
    fd, (distance, error) = frechet_distance(x, y), kid(x, y)
    assert frechet_distance(y, x) == pytest.approx(fd, rel=1e-10)
    assert frechet_distance(x @ turn + 3, y @ turn + 3) == pytest.approx(fd, rel=1e-9)
    assert frechet_distance(2 * x, 2 * y) == pytest.approx(4 * fd, rel=1e-10)
    for u, v in ((y, x), (x @ turn, y @ turn), (x.flip(0), y[torch.randperm(45)])):
        assert kid(u, v) == pytest.approx((distance, error), rel=1e-10)
    # Swapping the roles of dimension and vector must not pass unnoticed.
    assert frechet_distance(x[:, :4], y[:, :4]) != pytest.approx(fd, rel=1e-3)


def test_equal_sets():
    x = draw(30, 5, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-10)
    assert kid(x, x)[0] < 0  # unbiased: below zero where even the noise is shared


def test_both_compute_in_float64():
    """An offset a thousand times the spread, on which float32 sums lose every digit."""
    x, y = draw(60, 4, 0).float() + 1000, draw(50, 4, 1, scale=1.2).float() + 1000
    assert frechet_distance(x, y) == frechet_distance(x.double(), y.double())
    assert frechet_distance(x, y) == pytest.approx(fidelity_fd(x.double(), y.double()), rel=1e-6)
    assert kid(x, y) == kid(x.double(), y.double())


def test_moments_stand_for_their_set():
    x, y = draw(30, 5, 0), draw(45, 5, 1, mean=0.5)
    fd = frechet_distance(x, y)
    kept = Moments.of(y)
    assert frechet_distance(x, kept) == frechet_distance(Moments.of(x), kept) == fd
    assert frechet_distance(kept, x) == pytest.approx(fd, rel=1e-10)
    assert torch.allclose(kept.root @ kept.root, kept.cov, atol=1e-12)
    assert torch.allclose(kept.root, kept.root.T, atol=1e-12)


def test_kept_sums_stand_for_their_set():
    x, y = draw(20, 5, 0), draw(35, 5, 1, mean=0.5)
    by_hand = [
        float(sum((y[i] @ y[j] / 5 + 1) ** 3 for j in range(35) if j != i)) for i in range(35)
    ]
    assert kid_sums(y).tolist() == pytest.approx(by_hand, rel=1e-10)
    kept, others = (kid_projections(x, y, y_sums=kid_sums(y) + i) for i in (0, 1))
    assert (kept.value, kept.se) == pytest.approx(kid(x, y), rel=1e-12)
    assert others.value != pytest.approx(kid(x, y)[0], rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1)])
def test_one_vector_is_refused(n, m):
    with pytest.raises(ValueError, match="at least 2 vectors; got 1"):
        frechet_distance(draw(n, 3, 0), draw(m, 3, 1))
    with pytest.raises(ValueError, match="at least 2 vectors in a set; got 1"):
        kid(draw(n, 3, 0), draw(m, 3, 1))


def test_different_dimensions_are_refused():
    with pytest.raises(ValueError, match="different dimensions, 3 and 4"):
        frechet_distance(draw(5, 3, 0), draw(5, 4, 1))
