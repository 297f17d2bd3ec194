"""IS, precision, recall, density, coverage, CMMD: against torch-fidelity, by hand, and refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from mmd_ddm.evaluation.metrics import (
    METRICS,
    Moments,
    Real,
    choose_metrics,
    cmmd,
    density_coverage,
    frechet_distance,
    inception_score,
    kid,
    precision_recall,
)
from mmd_ddm.features.registry import make_features
from mmd_ddm.maths import mmd
from mmd_ddm.maths.kernels import Gaussian


def draw(n, d, seed, *, mean=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn((n, d), generator=generator)


def line(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


# Against torch-fidelity on the same features


@pytest.mark.parametrize(("n", "m"), [(60, 90), (1100, 700)])
def test_precision_and_recall_are_torch_fidelitys(n, m):
    x, y = draw(n, 8, 0, scale=0.6), draw(m, 8, 1, mean=0.3)
    expected = calculate_precision_recall_full(x, y, 3)
    assert precision_recall(x, y) == pytest.approx(expected, rel=1e-6)
    assert precision_recall(x, y, 7) == pytest.approx(calculate_precision_recall_full(x, y, 7))
    precision, recall = expected
    assert precision > recall + 0.1  # a set too narrow: swapped, they would be seen


@pytest.mark.parametrize("n", [10, 57, 200])
def test_inception_score_is_torch_fidelitys(n):
    classes = nn.Linear(6, 9, bias=False)
    x = draw(n, 6, 0, scale=3)
    expected = isc_features_to_metric(classes(x).detach())
    found = inception_score(x, lambda part: classes(part).detach())
    assert found == pytest.approx(tuple(expected.values()), rel=1e-6)
    assert found[0] > 1.01 or n == 10  # one image a part has no class but its own


# By hand


def test_density_and_coverage_by_hand():
    """Real 0, 1, 3, k = 1: radii 1, 1, 2. Then 0.5 lies in two balls, 4 in one, 9 in none."""
    density, coverage = density_coverage(line(0.5, 4, 9), line(0, 1, 3), k=1)
    assert density == pytest.approx((2 + 1 + 0) / 3)
    assert coverage == 1
    assert density_coverage(line(0.5, 0.4), line(0, 1, 3), k=1) == (2, pytest.approx(2 / 3))
    # The border is outside, as in the authors' code.
    assert density_coverage(line(-1, -2), line(0, 1, 3), k=1) == (0, 0)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (230, 210)], ids=["one block", "several"])
def test_density_and_coverage_are_plain_loops(n, m):
    x, y = draw(n, 3, 0, mean=0.5).double().numpy(), draw(m, 3, 1).double().numpy()
    radii = [np.sort(np.linalg.norm(a - y, axis=1))[5] for a in y]
    inside = [[np.linalg.norm(a - b) < r for b, r in zip(y, radii, strict=True)] for a in x]
    expected = sum(map(sum, inside)) / (5 * n), sum(map(any, zip(*inside, strict=True))) / m
    found = density_coverage(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(expected)


def test_cmmd_is_plain_loops():
    x, y = draw(9, 5, 0, mean=0.3), draw(13, 5, 1)

    def mean(a, b):
        a, b = (s.double() / s.double().norm(dim=1, keepdim=True) for s in (a, b))
        return np.mean([[np.exp(-float((u - v).square().sum()) / 200) for v in b] for u in a])

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-4)
    assert cmmd(7 * x, y) == pytest.approx(cmmd(x, y), rel=1e-4)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-6)


# Blocks: what does not fit is taken in parts


def test_large_sets_are_taken_in_blocks_of_rows_and_columns():
    x, y = draw(23, 4, 0).double(), draw(31, 4, 1, mean=0.2).double()
    sizes = []

    def kernel(a, b):
        sizes.append((len(a), len(b)))
        return Gaussian(2.0)(a, b)

    whole = mmd.mmd2_projections(x, y, Gaussian(2.0))
    blocks = mmd.mmd2_projections(x, y, kernel, block=7)
    for name, part in whole.parts.items():
        assert torch.allclose(blocks.parts[name], part, rtol=1e-10)
    assert max(max(size) for size in sizes) == 7
    x.requires_grad_()
    for block in (100, 7):
        (gradient,) = torch.autograd.grad(mmd.within(x, Gaussian(2.0), block=block), x)
        if block == 100:
            expected = gradient
    assert torch.allclose(gradient, expected, rtol=1e-10)


def test_moments_of_batches_are_those_of_the_whole():
    x = 1000 + draw(9000, 6, 0, scale=0.1)  # more than two batches
    parts = Moments.of(x)
    assert torch.allclose(parts.mean, x.double().mean(0), rtol=1e-14)
    assert torch.allclose(parts.cov, x.double().T.cov(), rtol=1e-9)


# What is refused


@pytest.mark.parametrize(("n", "m"), [(3, 9), (9, 3)])
def test_too_few_neighbours_are_refused(n, m):
    with pytest.raises(ValueError, match=r"the 3 nearest of a set need more than 3 .*; got 3"):
        precision_recall(draw(n, 2, 0), draw(m, 2, 1))
    with pytest.raises(ValueError, match=r"the 5 nearest of a set need more than 5 .*; got 3"):
        density_coverage(draw(n, 2, 0), draw(m, 2, 1))
    with pytest.raises(ValueError, match="of 10 parts; got 9"):
        inception_score(draw(9, 2, 0), lambda part: part)


# The table


NUMBERS = {
    "kid": {"kid", "kid_se"}, "fd": {"fd"}, "swd": {"swd", "swd_se"},
    "precision-recall": {"precision", "recall"},
    "density-coverage": {"density", "coverage"}, "is": {"is", "is_sd"}, "cmmd": {"cmmd"},
}  # fmt: skip


def test_every_metric_says_how_few_it_takes():
    assert NUMBERS.keys() == METRICS.keys()
    phi = make_features("pixels", 1)
    phi.logits = lambda features: features[:, :8]
    for name, metric in METRICS.items():
        least = metric.least
        real = Real(draw(least, 49, 0), phi)
        scores = metric.score(draw(least, 49, 1), real)
        assert scores.keys() == NUMBERS[name]
        assert all(np.isfinite(v) for k, v in scores.items() if not k.endswith("_se")), name
        if least > 1:
            with pytest.raises(ValueError, match=f"got {least - 1}"):
                metric.score(draw(least - 1, 49, 1), real)


def test_the_real_side_is_computed_once():
    x, y = draw(20, 4, 0), draw(30, 4, 1, mean=1)
    real = Real(y, make_features("pixels", 1))
    assert METRICS["fd"].score(x, real) == {"fd": frechet_distance(x, y)}
    value, error = kid(x, y)
    assert METRICS["kid"].score(x, real) == {"kid": value, "kid_se": error}
    assert real.moments is real.moments
    assert real.kid_sums is real.kid_sums


def test_metrics_are_chosen_by_space_and_number():
    pixels, clip = make_features("pixels", 1), make_features("random", 1)
    clip.name = "clip"
    everywhere = ("kid", "fd", "swd", "precision-recall", "density-coverage")
    assert choose_metrics([], [pixels, clip], 100) == [everywhere, (*everywhere, "cmmd")]
    assert choose_metrics([], [pixels], 5) == [everywhere[:4]]
    assert [len(choose_metrics([], [pixels], n)[0]) for n in (3, 4, 6)] == [3, 4, 5]
    assert choose_metrics(["density-coverage"], [pixels], 6) == [("density-coverage",)]
    assert choose_metrics(["cmmd", "fd"], [pixels, clip], 9) == [("fd",), ("cmmd", "fd")]
    for asked, images, said in (
        ("fid", 100, "unknown metric 'fid'; choose of kid, fd, swd"),
        ("density-coverage", 5, "density-coverage needs at least 6 images .* got 5"),
        (
            "is",
            100,
            "is needs a space with classes, as inception or efficientnet-lite0: add it with",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            choose_metrics([asked], [pixels, clip], images)
