"""Sheets with words: every picture is on them, whole, in its place."""

import numpy as np
import pytest
from commands import places

from mmd_ddm.report.sheets import sheet, zoom


def picture(seed, channels=1, height=5, width=4):
    noise = np.random.default_rng(seed)
    return noise.integers(0, 256, (channels, height, width), dtype=np.uint8)


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
