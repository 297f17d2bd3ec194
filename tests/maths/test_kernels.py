"""The kernels against double loops, scikit-learn, and their own invariances."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from mmd_ddm.maths.kernels import (
    KERNELS,
    Gaussian,
    Linear,
    Polynomial,
    make_kernel,
    median_sigma,
)

FORMULAS = {
    "linear": (Linear(), lambda dot, dist2, d: dot),
    "cubic": (Polynomial(), lambda dot, dist2, d: (dot / d + 1) ** 3),
    "quadratic": (Polynomial(degree=2), lambda dot, dist2, d: (dot / d + 1) ** 2),
    "gaussian": (Gaussian(), lambda dot, dist2, d: math.exp(-dist2 / d)),
    "narrow": (Gaussian(sigma=0.7), lambda dot, dist2, d: math.exp(-dist2 / (2 * 0.7**2))),
}


@pytest.fixture
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, 3), generator=generator, dtype=torch.float64)
    return x, 0.5 * torch.randn((6, 3), generator=generator, dtype=torch.float64) + 1


@pytest.mark.parametrize("name", FORMULAS)
def test_kernel_equals_its_formula_in_a_double_loop(name, sets):
    kernel, formula = FORMULAS[name]
    x, y = (s.tolist() for s in sets)
    expected = [
        [
            formula(
                sum(a * b for a, b in zip(u, v, strict=True)),
                sum((a - b) ** 2 for a, b in zip(u, v, strict=True)),
                len(u),
            )
            for v in y
        ]
        for u in x
    ]
    k = kernel(*sets)
    assert k.shape == (4, 6)
    assert k.dtype == torch.float64
    assert np.allclose(k, expected, rtol=1e-12, atol=0)


def test_kernels_equal_scikit_learn(sets):
    x, y = sets
    cubic = polynomial_kernel(x, y, degree=3, gamma=1 / 3, coef0=1)
    assert np.allclose(Polynomial()(x, y), cubic, rtol=1e-12)
    assert np.allclose(Gaussian()(x, y), rbf_kernel(x, y, gamma=1 / 3), rtol=1e-12)
    assert np.allclose(Gaussian(sigma=2.0)(x, y), rbf_kernel(x, y, gamma=1 / 8), rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_swapped_arguments_transpose(name, sets):
    kernel = FORMULAS[name][0]
    x, y = sets
    assert torch.allclose(kernel(x, y), kernel(y, x).T, rtol=1e-14)


@pytest.mark.parametrize("name", FORMULAS)
def test_kernel_is_positive_definite(name, sets):
    both = torch.cat(sets)
    kernel = FORMULAS[name][0]
    eigenvalues = torch.linalg.eigvalsh(kernel(both, both))
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()


def test_gaussian_of_equal_vectors_is_one_with_a_finite_gradient():
    x = (1e3 * torch.randn((5, 40), generator=torch.Generator().manual_seed(1))).requires_grad_()
    k = Gaussian(sigma=5.0)(x, x)
    assert k.max() <= 1
    (gradient,) = torch.autograd.grad(k.sum(), x)
    assert bool(gradient.isfinite().all())


def test_default_sigma_is_the_released_codes():
    x = torch.randn((3, 8), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(Gaussian()(x, x), Gaussian(sigma=2.0)(x, x), rtol=1e-13)


def test_names_make_kernels():
    assert {name: make_kernel(name) for name in KERNELS} == {
        "linear": Linear(),
        "cubic": Polynomial(degree=3),
        "gaussian": Gaussian(sigma=None),
    }


def test_a_gaussian_is_named_with_its_sigma():
    assert make_kernel("gaussian:8.5") == Gaussian(sigma=8.5)
    assert make_kernel("gaussian:1e-2") == Gaussian(sigma=0.01)


@pytest.mark.parametrize("sigma", ["", "0", "-1", "nan", "inf", "wide", "1:2"])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(
        ValueError, match=rf"^kernel 'gaussian:{sigma}': sigma is a number above 0"
    ):
        make_kernel(f"gaussian:{sigma}")


def test_the_median_heuristic_is_half_the_median_squared_distance(sets):
    x, y = sets[0][:3], sets[1][:5]
    distances2 = sorted(float((a - b).square().sum()) for a in x for b in y)
    assert median_sigma(x, y) == pytest.approx(math.sqrt(distances2[7] / 2), rel=1e-12)


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"unknown kernel 'rbf'.*linear, cubic, gaussian"):
        make_kernel("rbf")
