"""Between two noises: Eq. 8 by hand, its ends, its norm."""

import math

import torch

from mmd_ddm.maths.slerp import slerp


def noises():
    return torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def test_it_is_equation_8():
    a, b = noises()
    path = slerp(a, b, 5)
    theta = math.acos(float((a * b).sum() / (a.norm() * b.norm())))
    for i, alpha in enumerate((0, 0.25, 0.5, 0.75, 1)):
        one, other = math.sin((1 - alpha) * theta), math.sin(alpha * theta)
        expected = (one * a + other * b) / math.sin(theta)
        assert torch.allclose(path[i], expected, atol=1e-5)


def test_it_begins_and_ends_where_it_should_and_keeps_the_norm():
    a, b = noises()
    b = b * a.norm() / b.norm()
    path = slerp(a, b, 9)
    assert torch.allclose(path[0], a, atol=1e-5)
    assert torch.allclose(path[-1], b, atol=1e-5)
    assert torch.allclose(path.flatten(1).norm(dim=1), a.norm().expand(9), rtol=1e-4)
    assert torch.allclose(slerp(b, a, 9), path.flip(0), atol=1e-4)


def test_steps_are_even_in_the_angle():
    path = slerp(*noises(), 6).flatten(1)
    cosines = torch.cosine_similarity(path[1:], path[:-1])
    assert torch.allclose(cosines, cosines[0].expand(5), atol=1e-2)
