"""What is matched never judges: the parts of a data set share no picture."""

import pytest
import torch

from mmd_ddm.data.images import ImageSet
from mmd_ddm.data.split import split_images


def numbered(*values, source="a"):
    """Images that can be told apart: image i is all i but for one pixel."""
    pixels = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 4, 4)
    pixels[:, :, 3, 3] = 7
    return ImageSet(pixels, source)


def numbers(images):
    return images.pixels[:, 0, 0, 0].tolist()


def test_a_seeded_fifth_is_set_apart():
    images = numbered(*range(50))
    parts = split_images(images, None, seed=0)
    held = numbers(parts.heldout)
    assert len(held) == 10
    assert sorted(numbers(parts.matched) + held) == list(range(50))
    assert held != sorted(held)
    assert max(held) > 25 > min(held)
    assert (parts.matched.source, parts.heldout.source) == ("a", "a fifth of a")
    assert parts.dropped == 0
    assert numbers(split_images(images, None, seed=0).heldout) == held
    assert set(numbers(split_images(images, None, seed=1).heldout)) != set(held)


def test_given_images_are_held_out_whole():
    parts = split_images(numbered(*range(4)), numbered(100, 101, 102, source="b"), seed=0)
    assert numbers(parts.matched) == [0, 1, 2, 3]
    assert numbers(parts.heldout) == [100, 101, 102]
    assert parts.heldout.source == "b"


def test_copies_of_matched_images_are_left_out_and_counted():
    parts = split_images(numbered(0, 1, 2, 2), numbered(2, 9, 0, 8, 9, 2), seed=0)
    assert numbers(parts.matched) == [0, 1, 2, 2]
    assert numbers(parts.heldout) == [9, 8, 9]
    assert parts.dropped == 3


def test_one_other_pixel_is_another_picture():
    near = numbered(0, 1, 2)
    near.pixels[:, 0, 3, 3] = 8
    assert split_images(numbered(0, 1, 2), near, seed=0).dropped == 0


def test_copies_within_one_set_do_not_meet_either():
    parts = split_images(numbered(*range(40), *range(20)), None, seed=0)
    assert not set(numbers(parts.matched)) & set(numbers(parts.heldout))
    assert len(parts.matched) + len(parts.heldout) + parts.dropped == 60
    assert parts.dropped > 0


def test_a_tenth_of_what_would_be_matched_is_set_apart_to_select_by():
    images, others = numbered(*range(60)), numbered(*range(100, 109), 7, source="b")
    whole = split_images(images, others, seed=3)
    parts = split_images(images, others, seed=3, select=True)
    matched, chosen = numbers(parts.matched), numbers(parts.selection)
    assert len(chosen) == 6
    assert sorted(matched + chosen) == list(range(60))
    assert parts.selection.source == "a tenth of a"
    # Who judges is the same, and never among them: 7 may be of either part.
    assert numbers(parts.heldout) == numbers(whole.heldout) == list(range(100, 109))
    assert numbers(split_images(images, others, seed=3, select=True).selection) == chosen
    assert numbers(split_images(images, others, seed=4, select=True).selection) != chosen
    assert whole.selection is None
    assert parts.hashes.keys() == {"data_sha256", "heldout_sha256", "selection_sha256"}
    assert whole.hashes.keys() == {"data_sha256", "heldout_sha256"}


def test_what_is_matched_does_not_select():
    parts = split_images(numbered(*range(80), *range(20)), None, seed=0, select=True)
    apart = [set(numbers(part)) for part in (parts.matched, parts.selection, parts.heldout)]
    assert apart[0] & apart[1] == apart[0] & apart[2] == apart[1] & apart[2] == set()
    with pytest.raises(ValueError, match=r"a holds 3 images to match: too few.*select\.every=0"):
        split_images(numbered(1, 2, 3), numbered(5, 6, source="b"), seed=0, select=True)


@pytest.mark.parametrize(
    ("images", "heldout", "message"),
    [
        (numbered(*range(9)), None, "a holds 9 images; at least 10"),
        (numbered(1), numbered(2, 3, source="b"), "a holds one image; at least 2"),
        (numbered(1, 2), numbered(3, source="b"), "b holds one image; at least 2"),
        (numbered(1, 2), numbered(2, 1, source="b"), "2 of the 2 images of b are also in a"),
        (numbered(1, 2), numbered(2, 1, 3, source="b"), "2 of the 3 images of b are also in a"),
        (numbered(*[5] * 20), None, "4 of the 4 images of a fifth of a are also in a"),
    ],
)
def test_too_few_images_are_refused(images, heldout, message):
    with pytest.raises(ValueError, match=message):
        split_images(images, heldout, seed=0)
