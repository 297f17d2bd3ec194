"""The joint MMD under captions: against double loops, the marginal, the classes, expectations."""

import itertools

import pytest
import torch

from mmd_ddm.maths.joint_mmd import LabelKernel, TextKernel, joint_constant, joint_mmd2
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.mmd import within

KERNEL = Polynomial()
M, C = 12, 8


def draw(n, seed, d=3):
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed)).double()


def real():
    """Twelve vectors of eight captions, some of which have several."""
    of = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 3, 5])
    return draw(M, 0) + of[:, None] / 4, of


def text_kernel(mix=0.5, of=None):
    return TextKernel.over(real()[1] if of is None else of, mix, draw(C, 1, 4))


def test_it_is_the_formula_of_mean_one():
    k_c, of = text_kernel(0.3), real()[1]
    tau = k_c.vectors
    apart = torch.tensor([float((a - b).norm()) for a, b in itertools.combinations(tau, 2)])
    assert k_c.width == pytest.approx(float(apart.median()))
    soft = torch.exp(-torch.cdist(tau, tau).square() / (2 * k_c.width**2))
    p = of.bincount() / M
    expected = 0.7 + 0.3 * soft / float(p.double() @ soft @ p.double())
    a, b = torch.tensor([3, 3, 0]), torch.tensor([1, 3, 7, 2])
    torch.testing.assert_close(k_c(a, b), expected[a][:, b])
    assert float((k_c(of, of)).mean()) == pytest.approx(1)


def test_with_mix_zero_it_is_the_marginal():
    y, of_y = real()
    x, of_x = draw(6, 2), torch.tensor([0, 0, 3, 3, 5, 5])
    plain = LabelKernel.of(of_y, 0.0)
    for k in (plain, text_kernel(0.0)):
        assert joint_constant(y, of_y, KERNEL, k) == pytest.approx(float(within(y, KERNEL)))
    both = [
        float(joint_mmd2(x, of_x, y, of_y, KERNEL, k, constant=0))
        for k in (plain, text_kernel(0.0))
    ]
    assert both[0] == pytest.approx(both[1])


def test_captions_that_are_far_apart_are_classes():
    """A narrow kernel sees the same caption alone."""
    of_y, of_x = real()[1], torch.arange(8).repeat_interleave(2)
    narrow = TextKernel(of_y.bincount() / M, 1.0, 1e3 * draw(C, 1, 4), 1.0)
    delta = narrow(of_x, of_y)
    torch.testing.assert_close(delta, (of_x[:, None] == of_y).to(delta))


def test_the_constant_leaves_out_the_pairs_of_one_image():
    y, of_y = real()
    k_c = text_kernel(0.6)
    total = sum(
        float(k_c(of_y[i : i + 1], of_y[j : j + 1])) * float(KERNEL(y[i : i + 1], y[j : j + 1]))
        for i, j in itertools.permutations(range(M), 2)
    )
    assert joint_constant(y, of_y, KERNEL, k_c) == pytest.approx(total / (M * (M - 1)), rel=1e-5)


def test_over_all_draws_of_some_captions_it_is_what_all_of_them_give():
    """Groups of three captions of eight, two images each: the estimate is unbiased."""
    y, of_y = real()
    k_c = text_kernel(0.5)
    x, of_x = draw(2 * C, 3), torch.arange(C).repeat_interleave(2)
    whole = float(joint_mmd2(x, of_x, y, of_y, KERNEL, k_c, constant=0))
    found = []
    for group in itertools.combinations(range(C), 3):
        mine = torch.isin(of_x, torch.tensor(group))
        found.append(float(joint_mmd2(x[mine], of_x[mine], y, of_y, KERNEL, k_c, constant=0)))
    assert sum(found) / len(found) == pytest.approx(whole, rel=1e-6)


def test_it_sees_pictures_that_changed_their_captions():
    """As the marginal does not: all pairs are there, under other captions."""
    of = torch.arange(C).repeat_interleave(3)
    y = 2 * draw(C, 5)[of] + 0.1 * draw(3 * C, 6)
    x = 2 * draw(C, 5)[of] + 0.1 * draw(3 * C, 7)
    swapped = (of + 3) % C
    for mix, sees in ((0.0, False), (0.5, True)):
        k_c = text_kernel(mix, of)
        c = joint_constant(y, of, KERNEL, k_c)
        right, wrong = (
            float(joint_mmd2(x, names, y, of, KERNEL, k_c, constant=c)) for names in (of, swapped)
        )
        assert (wrong > right + 1) == sees


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="all captions are alike: images of different ones"):
        TextKernel.over(torch.tensor([0, 0]), 0.5, torch.ones(1, 4))
    y, of_y = real()
    with pytest.raises(ValueError, match="a batch of one class of 8 has no pairs"):
        joint_mmd2(draw(2, 2), of_y[:1].repeat(2), y, of_y, KERNEL, text_kernel(1.0), constant=0)
