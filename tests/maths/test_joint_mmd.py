"""The joint MMD against double loops, exact expectations, the marginal, and the bias it avoids."""

import itertools

import pytest
import torch

from mmd_ddm.maths.joint_mmd import LabelKernel, joint_constant, joint_mmd2
from mmd_ddm.maths.kernels import Gaussian, Linear, Polynomial
from mmd_ddm.maths.mmd import mmd2, pair_sum, within

KERNEL = Polynomial()


def draw(n, seed, d=3):
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed)).double()


def real(counts, seed=0):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return draw(len(labels), seed) + labels[:, None], labels


def label_kernel(of_y, mix):
    """In float64, so that nothing but the formula differs."""
    counts = torch.bincount(of_y).double()
    return LabelKernel(counts / counts.sum(), mix)


def loss(x, of_x, y, of_y, mix, kernel=KERNEL):
    k_c = label_kernel(of_y, mix)
    constant = joint_constant(y, of_y, kernel, k_c)
    return float(joint_mmd2(x, of_x, y, of_y, kernel, k_c, constant=constant))


def by_loops(x, of_x, y, of_y, mix, kernel):
    """Section by section, with all classes in the batch."""
    classes = range(int(of_y.max()) + 1)
    p = [float((of_y == c).double().mean()) for c in classes]

    def k_c(c, d):
        return (1 - mix) + (mix / p[c] if c == d else 0)

    def mean(a, b, *, other):
        values = [
            float(kernel(a[i : i + 1], b[j : j + 1]))
            for i in range(len(a)) for j in range(len(b)) if other or i != j
        ]  # fmt: skip
        return sum(values) / len(values)

    total = 0.0
    for c, d in itertools.product(classes, classes):
        x_c, x_d, y_d = x[of_x == c], x[of_x == d], y[of_y == d]
        weight = p[c] * p[d] * k_c(c, d)
        total += weight * (mean(x_c, x_d, other=c != d) - 2 * mean(x_c, y_d, other=True))
    pairs = itertools.permutations(range(len(y)), 2)
    total += (
        (1 - mix)
        * sum(float(kernel(y[i : i + 1], y[j : j + 1])) for i, j in pairs)
        / (len(y) * (len(y) - 1))
    )
    return total + mix * sum(p[c] * mean(y[of_y == c], y[of_y == c], other=False) for c in classes)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kernel", [Linear(), Polynomial(), Gaussian()], ids=repr)
def test_it_equals_the_double_loops(kernel, mix):
    y, of_y = real([4, 2, 6])
    of_x = torch.tensor([2, 0, 1, 0, 2, 1, 2])
    x = draw(7, 1)
    expected = by_loops(x, of_x, y, of_y, mix, kernel)
    assert loss(x, of_x, y, of_y, mix, kernel) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("drawn", [2, 3])
def test_over_all_that_can_be_drawn_it_is_the_mmd_itself(drawn, mix):
    """Two vectors each of 2 or 3 of 3 classes, each from two with chances 1/4 and 3/4."""
    y, of_y = real([5, 3, 2])
    k_c, chances = label_kernel(of_y, mix), torch.tensor([0.25, 0.75]).double()
    points = draw(6, 2).view(3, 2, 3)  # of every class
    expected = total_chance = 0.0
    for classes in itertools.combinations(range(3), drawn):
        of_x = torch.tensor(classes).repeat(2)
        for which in itertools.product((0, 1), repeat=2 * drawn):
            x = points[of_x, torch.tensor(which)]
            value = joint_mmd2(x, of_x, y, of_y, KERNEL, k_c, constant=0.0)
            chance = float(chances[torch.tensor(which)].prod())
            expected, total_chance = expected + chance * float(value), total_chance + chance
    p, C = k_c.shares, torch.arange(3)
    mass = (p[:, None] * chances).flatten()  # of every point
    at, of_points = points.view(6, 3), C.repeat_interleave(2)
    true = mass @ (KERNEL(at, at) * k_c(of_points, of_points)) @ mass
    true = true - 2 * mass @ (KERNEL(at, y) * k_c(of_points, of_y)).mean(1)
    assert expected / total_chance == pytest.approx(float(true), rel=1e-10)


def test_classes_that_are_swapped_are_seen_by_the_joint_alone():
    (x, of_x), (y, of_y) = real([60, 60], seed=2), real([60, 60], seed=3)
    marginal, right, swapped = (
        loss(x, labels, y, of_y, mix)
        for labels, mix in ((1 - of_x, 0.0), (of_x, 0.5), (1 - of_x, 0.5))
    )
    assert swapped > 5 * max(abs(marginal), abs(right))


def test_one_class_is_the_marginal():
    y, of_y = real([9])
    x = draw(5, 4)
    expected = float(mmd2(x, y, KERNEL))
    for mix in (0.0, 0.5, 1.0):
        value = loss(x, of_y[:5], y, of_y, mix)
        assert value == pytest.approx(expected, rel=1e-11)


def test_balanced_labels_bias_the_plain_estimate_as_the_formula_says():
    """Over all batches of 2 of each of 2 classes, each class a pair of points of equal chance."""
    points = draw(4, 5).view(2, 2, 3)
    of_x = torch.tensor([0, 0, 1, 1])
    plain = weighted = 0.0
    y, of_y = real([3, 3])
    for which in itertools.product((0, 1), repeat=4):
        x = points[of_x, torch.tensor(which)]
        plain += float(within(x, KERNEL)) / 16
        with_y = float(pair_sum(x, y, KERNEL, torch.full((4, 6), 1 / 24, dtype=torch.float64)))
        k_c = label_kernel(of_y, 0.0)
        joint = joint_mmd2(x, of_x, y, of_y, KERNEL, k_c, constant=0.0)
        weighted += (float(joint) + 2 * with_y) / 16
    K = KERNEL(points.view(4, 3), points.view(4, 3)).view(2, 2, 2, 2).mean((1, 3))
    K_w, K_b = float(K.diagonal().mean()), float(K[0, 1])
    assert weighted == pytest.approx((K_w + K_b) / 2, rel=1e-10)
    assert plain - weighted == pytest.approx(-(K_w - K_b) * (2 - 1) / (2 * (4 - 1)), rel=1e-10)


def test_gradient_equals_finite_differences():
    y, of_y = real([4, 3, 5])
    of_x = torch.tensor([0, 2, 0, 2])  # two of three classes
    k_c, x = label_kernel(of_y, 0.3), draw(4, 6).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: joint_mmd2(z, of_x, y, of_y, KERNEL, k_c, constant=0.0), (x,)
    )


def test_blocks_of_pairs_change_nothing():
    x, y, w = draw(7, 0), draw(5, 1), draw(7, 2, d=5)
    whole = pair_sum(x, y, KERNEL, w)
    assert float(whole) == pytest.approx(float((w * KERNEL(x, y)).sum()), rel=1e-12)
    assert float(pair_sum(x, y, KERNEL, w, block=2)) == pytest.approx(float(whole), rel=1e-12)


def test_what_has_no_pairs_is_refused():
    y, of_y = real([4, 1, 3])
    k_c = label_kernel(of_y, 0.5)
    with pytest.raises(ValueError, match="class 1 has one image"):
        joint_constant(y, of_y, KERNEL, k_c)
    for of_x, message in (
        ([0, 0, 2], "two vectors"),
        ([0, 0, 0], "one class of 3 has no pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            joint_mmd2(draw(3, 1), torch.tensor(of_x), y, of_y, KERNEL, k_c, constant=0.0)
