"""Sorted projections of patches: plain loops, what they see and what they do not."""

import pytest
import torch
from torch import nn

from mmd_ddm.features.patches import Patches
from mmd_ddm.features.registry import make_features


def images(n, channels, height=28, width=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    size = (n, channels, height, width or height)
    return torch.rand(size, generator=draw, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_sorted_projections_in_plain_loops(channels):
    phi, (x,) = make_features("patches", channels).double(), images(1, channels, 14, 12)
    half = nn.functional.avg_pool2d(x, 2)
    expected = []
    for scaled in (x, half):
        rows, columns = (n - 4 for n in scaled.shape[1:])
        for theta in phi.directions:
            values = sorted(
                float((theta * scaled[:, i : i + 5, j : j + 5]).sum())
                for i in range(rows)
                for j in range(columns)
            )
            n = len(values)
            parts = [values[j * n // 8 : -(-(j + 1) * n // 8)] for j in range(8)]
            expected += [sum(part) / len(part) for part in parts]
    assert torch.allclose(phi(x[None])[0], x.new_tensor(expected), rtol=1e-9, atol=1e-12)


def test_patches_see_no_brightness_and_no_place():
    phi, x = make_features("patches", 1).double(), images(2, 1, 28)
    assert torch.allclose(phi(x + 0.3), phi(x), atol=1e-6)
    assert torch.allclose(phi(2 * x), 2 * phi(x), rtol=1e-9)
    norms = phi.directions.flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), rtol=1e-6)
    bright, shifted = torch.zeros((2, 1, 1, 28, 28), dtype=torch.float64)
    bright[..., 8:11, 8:12], shifted[..., 12:15, 16:20] = 1, 1
    assert torch.allclose(phi(bright), phi(shifted), atol=1e-12)


def test_other_directions_are_another_space():
    one, other = Patches(1), Patches(1, seed=1)
    assert one.sha256 != other.sha256
    assert one.sha256 == make_features("patches", 1).sha256


def test_images_smaller_than_patches_are_refused():
    phi = make_features("patches", 1)
    phi(torch.zeros((1, 1, 10, 10)))
    with pytest.raises(ValueError, match="at least 10 pixels a side; got 12 x 9"):
        phi(torch.zeros((1, 1, 12, 9)))
