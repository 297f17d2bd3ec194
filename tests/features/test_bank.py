"""The bank of features: computed once, kept by content, mapped from disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.features.registry import FeatureExtractor
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.runs.store import cache_dir


class Counting(FeatureExtractor):
    """A linear map that counts the images it is shown."""

    name = "counting"
    dim = 4

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((9, 4), weight) + torch.arange(4))
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return images.flatten(1) @ self.weight


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def image_set(n=10, seed=0, source="made up"):
    pixels = torch.randint(0, 256, (n, 1, 3, 3), generator=torch.Generator().manual_seed(seed))
    return ImageSet(pixels.to(torch.uint8), source)


def test_extract_is_phi_in_batches():
    images, phi, told = image_set(), Counting(), []
    features = extract(images.pixels, phi, batch_size=4, on_batch=told.append)
    assert phi.seen == told == [4, 4, 2]
    expected = from_uint8(images.pixels).flatten(1) @ phi.weight
    assert torch.allclose(features, expected, atol=1e-5)
    assert features.dtype == torch.float32
    assert not features.requires_grad


def test_a_second_call_asks_nobody(cache):
    images, phi = image_set(), Counting()
    first = cached_features(images, phi)
    again = cached_features(images, phi)
    assert phi.seen == [10, 1]  # the one tells whether the bank is this extractor's
    assert torch.equal(first, again)
    assert torch.equal(first, extract(images.pixels, phi))
    (file,) = cache.iterdir()
    assert file.name.startswith("counting-")


def test_content_and_weights_are_the_key(cache):
    cached_features(image_set(), Counting())
    cached_features(image_set(source="the same images elsewhere"), Counting())
    assert len(list(cache.iterdir())) == 1
    others = [(image_set(seed=1), Counting()), (image_set(n=9), Counting()),
              (image_set(), Counting(weight=2.0))]  # fmt: skip
    for count, (images, phi) in enumerate(others, start=2):
        features = cached_features(images, phi)
        assert torch.equal(features, extract(images.pixels, phi))
        assert len(list(cache.iterdir())) == count


def test_one_pixel_makes_another_bank():
    images, phi = image_set(), Counting()
    before = cached_features(images, phi)
    pixels = images.pixels.clone()
    pixels[3, 0, 1, 1] ^= 1
    after = cached_features(ImageSet(pixels, images.source), phi)
    assert (before != after).any(1).nonzero().tolist() == [[3]]


def test_the_bank_is_mapped_and_writing_to_it_spares_the_file(monkeypatch):
    images, phi, loaded = image_set(), Counting(), []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    bank = cached_features(images, phi)
    assert isinstance(loaded[0], np.memmap)
    assert bank.data_ptr() == loaded[0].ctypes.data
    bank.zero_()
    assert torch.equal(cached_features(images, phi), extract(images.pixels, phi))


def test_a_full_disk_leaves_no_half_bank(monkeypatch):
    images, phi = image_set(), Counting()

    def half(file, array):
        file.write(array.tobytes()[:20])
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", half)
        with pytest.raises(OSError, match="no space left"):
            cached_features(images, phi)
    assert torch.equal(cached_features(images, phi), extract(images.pixels, phi))


@pytest.mark.parametrize("other", [(image_set(), 2.0), (image_set(seed=1), 1.0)])
def test_a_bank_of_other_weights_or_images_is_refused(other, cache):
    (images, weight), mine = other, image_set()
    cached_features(images, Counting(weight))
    (foreign,) = cache.iterdir()
    cached_features(mine, Counting())
    (own,) = set(cache.iterdir()) - {foreign}
    foreign.replace(own)
    with pytest.raises(ValueError, match=r"made by other weights or of other images; remove it"):
        cached_features(mine, Counting())
    np.save(own, np.zeros((10, 3), np.float32))
    with pytest.raises(ValueError, match=r"does not hold the features of made up in counting"):
        cached_features(mine, Counting())


def test_the_default_place_is_in_the_home(monkeypatch):
    monkeypatch.delenv("MMD_DDM_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "mmd-ddm"
