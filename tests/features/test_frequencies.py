"""The power spectrum: plain loops, a wave, what it sees and what it does not."""

import math

import numpy as np
import pytest
import torch

from mmd_ddm.features.registry import make_features

ROUNDING = (2 / 255) ** 2 / 12


def images(n, channels, height=28, width=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    size = (n, channels, height, width or height)
    return torch.rand(size, generator=draw, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (10, 7)], ids=str)
def test_frequencies_are_plain_loops_over_a_transform(size):
    (x,) = images(1, 2, *size)
    height, width = size
    power = np.abs(np.fft.fft2(x.numpy())) ** 2 / (height * width)
    rings = {}
    for i in range(height):
        for j in range(width):
            v, u = min(i, height - i) / height, min(j, width - j) / width
            k = math.ceil(math.hypot(u, v) * min(size) - 0.5 - 1e-9)
            rings.setdefault(k, []).append(power[:, i, j])
    assert sorted(rings) == [*range(len(rings))]
    means = np.array([np.mean(rings[k], 0) for k in sorted(rings)])
    expected = np.log10(1 + means / ROUNDING).T
    found = make_features("frequencies", 2)(x[None])[0]
    assert np.allclose(found.numpy(), expected.flatten(), rtol=1e-9)


def test_a_wave_lies_in_its_ring():
    at = torch.arange(28, dtype=torch.float64)
    wave = (2 * math.pi * (3 * at[:, None] + 4 * at) / 28).cos()[None, None]
    found = make_features("frequencies", 1)(wave)[0]
    others = [k for k in range(len(found)) if k != 5]
    assert int(found.argmax()) == 5
    assert found[5] > 3
    assert found[others].abs().max() < 1e-6


def test_frequencies_see_no_layout():
    phi, x = make_features("frequencies", 1), images(2, 1)
    assert torch.allclose(phi(x.roll((3, 5), (2, 3))), phi(x), rtol=1e-9)
    assert torch.allclose(phi(x.flip(3)), phi(x), rtol=1e-9)
    assert not torch.allclose(phi(x.sort(3).values), phi(x), rtol=1e-2)


def test_what_rounding_hides_changes_hardly_a_frequency():
    phi, flat = make_features("frequencies", 1), torch.zeros((1, 1, 28, 28))
    faint = flat + 1e-4 * images(1, 1).float()
    assert torch.allclose(phi(faint), phi(flat), atol=1e-2)
    flat.requires_grad_()
    (gradient,) = torch.autograd.grad(phi(flat).sum(), flat)
    assert gradient.isfinite().all()
