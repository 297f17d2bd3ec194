"""Range conversions, the straight-through clamp, grids and files."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmd_ddm.maths.pixels import clamp_hard, clamp_straight_through, from_uint8, to_uint8
from mmd_ddm.report.sheets import grid, save_png


def test_every_pixel_value_survives_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    floats = from_uint8(values)
    assert floats.dtype == torch.float32
    assert (float(floats[0]), float(floats[255])) == (-1, 1)
    assert torch.equal(to_uint8(floats), values)


def test_to_uint8_is_what_diffusers_pipelines_do():
    images = torch.linspace(-1.2, 1.2, 4001).reshape(1, 1, 1, -1)
    unit = (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    expected = (unit * 255).round().astype("uint8")
    assert np.array_equal(to_uint8(images).permute(0, 2, 3, 1).numpy(), expected)


def test_to_uint8_takes_half_precision_and_tensors_with_gradients():
    images = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    assert to_uint8(images).tolist() == [0, 128, 255]
    assert to_uint8(images.to(torch.bfloat16)).tolist() == [0, 128, 255]


def test_straight_through_clamp_is_exact_however_large_the_image():
    generator = torch.Generator().manual_seed(0)
    images = 300 * torch.randn((1000,), generator=generator)
    assert torch.equal(clamp_straight_through(images), images.clamp(-1, 1))


def test_straight_through_clamp_passes_the_gradient():
    images = torch.tensor([-5.0, -0.5, 0.5, 5.0], requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (clamp_straight_through(images) * weights).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, weights)


def test_hard_clamp_has_the_same_value_and_no_gradient_where_saturated():
    images = torch.tensor([-5.0, -0.5, 0.5, 5.0], requires_grad=True)
    assert torch.equal(clamp_hard(images), clamp_straight_through(images))
    clamp_hard(images).sum().backward()
    assert images.grad.tolist() == [0, 1, 1, 0]


def test_grid_places_images_row_by_row():
    images = np.stack([np.full((3, 2, 4), i, np.uint8) for i in range(5)])
    sheet = grid(images, columns=3, gap=2)
    assert sheet.shape == (3, 2 + 2 * (2 + 2), 2 + 3 * (4 + 2))
    for i in range(5):
        top, left = 2 + i // 3 * 4, 2 + i % 3 * 6
        assert bool((sheet[:, top : top + 2, left : left + 4] == i).all())
    assert int((sheet == 255).sum()) == sheet.size - images.size


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_every_pixel_enlarged(channels, tmp_path):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (channels, 3, 5), dtype=torch.uint8, generator=generator)
    path = tmp_path / "new" / "image.png"
    save_png(image.numpy(), path, scale=2)
    with Image.open(path) as opened:
        assert opened.mode == {1: "L", 3: "RGB"}[channels]
        pixels = torch.from_numpy(np.array(opened)).reshape(6, 10, channels).permute(2, 0, 1)
    assert torch.equal(pixels, image.repeat_interleave(2, 1).repeat_interleave(2, 2))
