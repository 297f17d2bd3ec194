"""Sheets with words: every picture is on them, whole, in its place."""

import os

import numpy as np
import pytest
from commands import places
from PIL import Image

from mmd_ddm.report.sheets import pairs, save_png, save_sheet, sheet, zoom


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


@pytest.mark.parametrize(("n", "real"), [(1, 2), (5, 9), (12, 16), (17, 40), (24, 2)])
def test_below_every_base_image_is_the_finetuned_of_the_same_noise(n, real):
    def shaded(first, count):
        shades = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]
        return np.broadcast_to(shades, (count, 1, 4, 4))

    seen = pairs(shaded(0, n), shaded(100, n), shaded(200, real))[0].astype(int)
    below = {
        (above, seen[y + 5, x])
        for (y, x), above in np.ndenumerate(seen[:-5])
        if above < 100 and (y - 1) % 5 == 0
    }
    assert below == {(i, 100 + i) for i in range(n)}
    assert set(range(200, 200 + min(real, 4))) & set(np.unique(seen))


@pytest.mark.parametrize("one_of_many", [False, True])
def test_a_picture_that_fails_half_way_leaves_the_old(one_of_many, tmp_path, monkeypatch):
    path = tmp_path / "new" / "00000.png"
    save_png(picture(0), path, one_of_many=one_of_many)
    old = path.read_bytes()

    def half(self, file, kind):
        file.write(old[: len(old) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_png(picture(1), path, one_of_many=one_of_many)
    with pytest.raises(KeyboardInterrupt):
        save_sheet(sheet([("", [("", picture(1))])]), path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_many_pictures_do_not_wait_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for i in range(3):
        save_png(picture(i), tmp_path / f"{i}.png", one_of_many=True)
    assert synced == []
    save_png(picture(0), tmp_path / "grid.png")
    assert len(synced) == 2
