"""The bank of features: computed once, kept by content, mapped from disk."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.features.registry import FeatureExtractor
from mmd_ddm.maths.pixels import from_uint8


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


def test_a_second_call_asks_for_the_first_image_only(cache):
    images, phi = image_set(), Counting()
    first = cached_features(images, phi)
    assert phi.seen == [1, 10]
    again = cached_features(images, phi)
    assert phi.seen == [1, 10, 1]  # the one tells whether the bank is this extractor's
    assert torch.equal(first, again)
    assert torch.equal(first, extract(images.pixels, phi))
    (file,) = (cache / "features").iterdir()
    assert file.name.startswith("counting-")


def test_content_and_weights_are_the_key(cache):
    cached_features(image_set(), Counting())
    cached_features(image_set(source="the same images elsewhere"), Counting())
    assert len(list((cache / "features").iterdir())) == 1
    others = [(image_set(seed=1), Counting()), (image_set(n=9), Counting()),
              (image_set(), Counting(weight=2.0))]  # fmt: skip
    for count, (images, phi) in enumerate(others, start=2):
        features = cached_features(images, phi)
        assert torch.equal(features, extract(images.pixels, phi))
        assert len(list((cache / "features").iterdir())) == count


def test_one_pixel_makes_another_bank():
    images, phi = image_set(), Counting()
    before = cached_features(images, phi)
    pixels = images.pixels.clone()
    pixels[3, 0, 1, 1] ^= 1
    after = cached_features(ImageSet(pixels, images.source), phi)
    assert (before != after).any(1).nonzero().tolist() == [[3]]


def test_the_bank_is_mapped_and_writing_to_it_spares_the_file(cache):
    images, phi = image_set(), Counting()
    bank = cached_features(images, phi)
    (file,) = (cache / "features").iterdir()
    assert str(file) in Path("/proc/self/maps").read_text(encoding="utf-8")
    bank.zero_()
    assert torch.equal(cached_features(images, phi), extract(images.pixels, phi))


FOREIGN = {
    "of other weights": (image_set(), 2.0),
    "of other images": (image_set(seed=1), 1.0),
    "of fewer images": (image_set(n=9), 1.0),
}


@pytest.mark.parametrize("other", FOREIGN)
def test_a_bank_under_anothers_name_is_computed_again(other, cache):
    (images, weight), mine, phi = FOREIGN[other], image_set(), Counting()
    cached_features(images, Counting(weight))
    (foreign,) = (cache / "features").iterdir()
    cached_features(mine, phi)
    (own,) = set((cache / "features").iterdir()) - {foreign}
    foreign.replace(own)
    for _ in range(2):
        assert torch.equal(cached_features(mine, phi), extract(mine.pixels, phi))
    assert phi.seen == [1, 10, 1, 10, 10, 1, 10]


@pytest.mark.parametrize("size", [0, 100, 200])
def test_a_damaged_bank_is_computed_again(size, cache):
    images, phi = image_set(), Counting()
    cached_features(images, phi)
    (file,) = (cache / "features").iterdir()
    file.write_bytes(file.read_bytes()[:size])
    assert torch.equal(cached_features(images, phi), extract(images.pixels, phi))


def test_an_extractor_that_is_no_function_is_refused():
    phi = Counting()
    phi.register_forward_hook(lambda *_: phi.weight.data.add_(1))
    with pytest.raises(ValueError, match="counting gives the first image of made up another"):
        cached_features(image_set(), phi)


def test_vectors_that_are_not_numbers_are_refused(cache):
    phi = Counting()
    phi.register_forward_hook(lambda module, given, found: found.log())  # of black pixels, -inf
    with pytest.raises(ValueError, match="counting gives images of made up vectors that are not"):
        cached_features(image_set(), phi)
    assert not list(cache.rglob("*.npy"))
