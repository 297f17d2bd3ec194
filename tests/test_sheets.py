"""Sheets with words: every picture is on them, whole, in its place."""

import numpy as np
import pytest
import torch

from mmd_ddm.sheets import sheet, zoom


def picture(seed, channels=1, height=5, width=4):
    noise = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, height, width), generator=noise).byte()


def places(on, image, scale=1):
    """Top left corners at which the image is found, as [row, column]."""
    wanted = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2).permute(1, 2, 0)
    wanted, sheet = wanted.expand(-1, -1, 3).numpy(), np.asarray(on.convert("RGB"))
    h, w = wanted.shape[:2]
    at = np.argwhere(np.ones((sheet.shape[0] - h + 1, sheet.shape[1] - w + 1)))
    # A few pixels leave few places to look at.
    for y, x in np.random.default_rng(0).integers((h, w), size=(100, 2)):
        at = at[(sheet[at[:, 0] + y, at[:, 1] + x] == wanted[y, x]).all(1)]
    return [[y, x] for y, x in at.tolist() if (sheet[y : y + h, x : x + w] == wanted).all()]


def test_pictures_stand_side_by_side_and_bands_below_each_other():
    a, b, c = picture(0), picture(1, height=7), picture(2, channels=3)
    made = sheet([("", [("", a), ("", b)]), ("", [("", c)])], scale=2)
    ((top_a, left_a),), ((top_b, left_b),) = places(made, a, 2), places(made, b, 2)
    assert (top_a + 10, left_a) == (top_b + 14, 0)  # bottoms in line
    assert left_b == 8 + 8
    assert places(made, c, 2) == [[14 + 16, 0]]


def test_words_take_room_above():
    plain = sheet([("", [("", picture(0))])])
    titled = sheet([("heading", [("title", picture(0))])])
    (place,) = places(titled, picture(0))
    assert titled.height - place[0] == plain.height == 5
    assert place[0] > 20
    ink = np.asarray(titled.convert("L"))[: place[0]] < 100
    assert ink[: place[0] // 2].any()
    assert ink[place[0] // 2 :].any()


@pytest.mark.parametrize(("width", "scale"), [(8, 7), (28, 2), (32, 2), (64, 1), (256, 1)])
def test_small_images_are_enlarged(width, scale):
    assert zoom(width) == scale
