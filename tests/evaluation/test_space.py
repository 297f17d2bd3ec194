"""Judging: features of uint8 images against the real ones, a floor, and nothing computed twice."""

import pytest
import torch

from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics import frechet_distance, inception_score, kid
from mmd_ddm.evaluation.metrics.registry import METRICS, register_metric
from mmd_ddm.evaluation.space import Space, metric_device
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator


def images(n, seed, by=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=generator) // by
    return ImageSet(pixels.to(torch.uint8), f"seed {seed}")


def features(of):
    """`Pixels`, written down once more: 8 pixels in 7 bins that overlap by one."""
    x = from_uint8(of.pixels)
    rows = (x[:, :, 1:] + x[:, :, :-1]) / 2
    return ((rows[..., 1:] + rows[..., :-1]) / 2).flatten(1)


class Counting(FeatureExtractor):
    """Says how many images it has seen; of dark ones it can give a number less."""

    name, dim = "counting", 64

    def __init__(self, drops=False):
        super().__init__()
        self.seen, self.drops = 0, drops

    def forward(self, images):
        self.seen += len(images)
        return images.flatten(1)[:, : 63 if self.drops and images.mean() < -0.3 else 64]


def test_scores_compare_features_of_uint8_images_with_the_real_ones():
    real, drawn = images(40, 0), images(25, 2, by=2)
    scores = Space("pixels", "held-out", Pixels(1), real).scores(drawn)
    assert scores["fd"] == pytest.approx(
        frechet_distance(features(drawn), features(real)), rel=1e-5
    )
    distance, error = kid(features(drawn), features(real))
    assert scores["kid"] == pytest.approx(distance, rel=1e-5)
    assert scores["kid_se"] == pytest.approx(error, rel=1e-5)
    assert set(scores) == {"fd", "kid", "kid_se"}


def test_a_space_describes_itself_with_its_floor():
    real, other = images(40, 0), images(30, 1)
    space = Space("pixels", "optimised", Pixels(1), real, other)
    about = space.describe()
    assert (about["role"], about["dim"], about["sha256"]) == ("optimised", 49, Pixels(1).sha256)
    # The floor is what a model that draws those other real images would get.
    assert about["floor"] == pytest.approx(space.scores(other), rel=1e-5)
    assert abs(about["floor"]["kid"]) < 3 * about["floor"]["kid_se"]
    assert space.scores(images(30, 1, by=2))["kid"] > 10 * abs(about["floor"]["kid"])


def test_the_floor_without_other_images_is_between_two_halves_that_share_none():
    real = images(41, 0)
    halves = ImageSet(real.pixels[:1].expand(41, -1, -1, -1), "41 copies of one")
    floor = Space("pixels", "held-out", Pixels(1), real).floor()
    assert abs(floor["kid"]) < 3 * floor["kid_se"]
    # Of copies alone, both halves hold the same vectors.
    assert Space("pixels", "held-out", Pixels(1), halves).floor()["fd"] == pytest.approx(0)


def test_the_halves_are_a_named_draw_that_changes_no_more(tmp_path, monkeypatch):
    real = images(41, 0)
    order = torch.randperm(41, generator=generator(0, 0, 0, "floor"))
    one, other = (features(ImageSet(real.pixels[part], "")) for part in (order[20:], order[:20]))
    value, error = kid(one, other)
    expected = {"fd": frechet_distance(one, other), "kid": value, "kid_se": error}
    for again in range(2):
        monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / str(again)))
        floor = Space("pixels", "held-out", Pixels(1), real).floor()
        assert floor == pytest.approx(expected, rel=1e-4)


class Half(Pixels):
    """Other features of the same images."""

    def forward(self, images):
        return super().forward(images) / 2


@pytest.mark.parametrize("change", ["images", "real", "phi"])
def test_what_decides_a_score_has_changed_and_it_is_computed_again(change):
    real, drawn, phi = images(24, 20), images(24, 21), Pixels(1)
    first = Space("pixels", "held-out", phi, real)
    before = first.scores(drawn)
    if change == "images":
        drawn = images(24, 22, by=2)
    elif change == "real":
        real = images(24, 22, by=2)
    else:
        phi = Half(1)
    after = Space("pixels", "held-out", phi, real).scores(drawn)
    factor = 0.5 if change == "phi" else 1.0
    x, y = factor * features(drawn), factor * features(real)
    assert after["fd"] == pytest.approx(frechet_distance(x, y), rel=1e-4)
    assert (after["kid"], after["kid_se"]) == pytest.approx(kid(x, y), rel=1e-4)
    assert all(after[name] != pytest.approx(before[name], rel=0.01) for name in before)


def test_what_is_remembered_is_not_computed_again():
    real, drawn, phi = images(24, 5), images(24, 6), Counting()
    space = Space("counting", "held-out", phi, real)
    first = (space.describe(), space.scores(drawn))
    assert phi.seen >= 48
    phi.seen = 0
    again = Space("counting", "held-out", phi, real)
    assert (again.describe(), again.scores(drawn)) == first
    assert phi.seen == 0
    again.scores(images(24, 7))
    assert phi.seen >= 24


def test_a_space_of_two_dimensions_is_refused():
    space = Space("counting", "held-out", Counting(drops=True), images(24, 8))
    with pytest.raises(ValueError, match="have dimension 63, those of the real images 64"):
        space.scores(images(24, 9, by=2))


class Classes(Pixels):
    """With classes, and a dimension that it does not say."""

    def __init__(self):
        super().__init__(1)
        self.dim = 0
        draw = torch.Generator().manual_seed(0)
        self.class_weights = torch.randn(49, 9, generator=draw)

    def logits(self, features):
        return features @ self.class_weights


def test_a_space_with_classes_has_their_score_and_floor():
    real, drawn = images(40, 12), images(20, 13, by=2)
    space = Space("classes", "held-out", Classes(), real, metrics=("is",))
    expected = inception_score(features(drawn), Classes().logits)
    assert space.scores(drawn) == pytest.approx(
        dict(zip(("is", "is_sd"), expected, strict=True)), rel=1e-4
    )
    about = space.describe()
    assert about["floor"].keys() == {"is", "is_sd"}
    assert about["dim"] == 49


@pytest.mark.parametrize(("device", "where"), [("cuda", "cuda"), ("cpu", "cpu"), ("mps", "cpu")])
def test_metrics_are_computed_where_float64_is_fast(device, where):
    assert metric_device(torch.device(device)).type == where


def test_a_metric_of_ones_own_is_computed_by_its_name():
    calls = []

    def gap(x, y):
        """Distance of the means."""
        calls.append((len(x), len(y)))
        return (x.mean(0) - y.mean(0)).norm()

    register_metric("gap", gap)
    try:
        real, drawn = images(24, 10), images(12, 11)
        space = Space("pixels", "held-out", Pixels(1), real, metrics=("gap",))
        expected = (features(drawn).mean(0) - features(real).mean(0)).norm().item()
        for _ in range(2):  # code of a caller may change: nothing is remembered
            assert space.scores(drawn) == {"gap": pytest.approx(expected, rel=1e-5)}
        assert calls == [(12, 24)] * 2
        beside = Space("pixels", "held-out", Pixels(1), real, metrics=("fd", "gap", "kid"))
        assert beside.scores(drawn).keys() == {"fd", "gap", "kid", "kid_se"}
        assert METRICS["gap"].least == 2
        assert METRICS["gap"].about == "Distance of the means."
        with pytest.raises(ValueError, match="there is a metric 'gap' already"):
            register_metric("gap", gap)
    finally:
        del METRICS["gap"]
