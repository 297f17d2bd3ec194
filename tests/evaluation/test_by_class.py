"""Classes are judged as classes: what cancels over them is seen, and each has its numbers."""

from dataclasses import replace

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics.by_class import accuracies, class_kid, linear_classifier
from mmd_ddm.evaluation.metrics.kid import kid
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.pixels import Pixels


class Fixed:
    """A covariance that is known already."""

    def __init__(self, covariance):
        self.covariance_ = covariance

    def fit(self, x):
        return self


def blobs(counts, seed, shift=0.0):
    """Vectors around a centre for each class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    draw = torch.Generator().manual_seed(seed)
    centres = 2 * torch.eye(4)[labels]
    return centres + 0.3 * torch.randn((len(labels), 4), generator=draw) + shift, labels


def test_it_is_the_mean_over_classes_of_kid_within_each():
    (x, of_x), (y, of_y) = blobs([5, 3, 7], 0, shift=0.4), blobs([6, 4, 3], 1)
    found, each = class_kid(x, of_x, y, of_y)
    kids = [kid(x[of_x == c], y[of_y == c]) for c in range(3)]
    assert found.value == pytest.approx(sum(value for value, _ in kids) / 3, rel=1e-10)
    assert [each[c].value for c in range(3)] == pytest.approx([k for k, _ in kids], rel=1e-10)
    assert [each[c].se for c in range(3)] == pytest.approx([se for _, se in kids], rel=1e-10)
    assert len(found.parts["generated"]) == 15


def test_its_error_is_that_of_a_mean_of_independent_classes():
    (x, of_x), (y, of_y) = blobs([50, 80, 40], 0), blobs([60, 40, 90], 1)
    x = x + of_x[:, None]  # one class is right, the others are ever farther off
    found, each = class_kid(x, of_x, y, of_y)
    expected = sum(kid.se**2 for kid in each.values()) ** 0.5 / 3
    assert found.se == pytest.approx(expected, rel=0.03)


def test_two_classes_that_are_swapped_are_seen():
    (x, of_x), (y, of_y) = blobs([40, 40], 0), blobs([40, 40], 1)
    right, _ = class_kid(x, of_x, y, of_y)
    swapped, _ = class_kid(x, 1 - of_x, y, of_y)
    whole, se = kid(x, y)
    assert abs(whole) < 4 * se
    assert abs(right.value) < 4 * right.se
    assert swapped.value > 20 * swapped.se


def test_classes_without_pairs_do_not_count():
    (x, of_x), (y, of_y) = blobs([5, 1, 7], 0), blobs([6, 4, 3], 1)
    found, each = class_kid(x, of_x, y, of_y)
    assert sorted(each) == [0, 2]
    assert found.value == pytest.approx((each[0].value + each[2].value) / 2)
    with pytest.raises(ValueError, match="no class has two images in both sets"):
        class_kid(x[5:6], of_x[5:6], y, of_y)


def test_pairs_with_the_same_noise_differ_by_less_than_their_errors_say():
    (x, of_x), (y, of_y) = blobs([60, 60, 60], 0), blobs([60, 60, 60], 1)
    a, _ = class_kid(x, of_x, y, of_y)
    b, _ = class_kid(x + 0.005, of_x, y, of_y)
    assert (a - b).se < 0.2 * a.se


def test_a_classifier_knows_classes_that_are_apart_and_is_told_wrong_labels():
    (x, of_x), (y, of_y) = blobs([30, 20, 10], 0), blobs([60, 40, 30], 1)
    told = linear_classifier(y, of_y)(x)
    assert torch.equal(told, of_x)
    wrong = of_x.clone()
    wrong[:15] = 1
    found = accuracies(told, wrong, class_kid(x, wrong, y, of_y)[1])
    assert found["accuracy"] == pytest.approx(45 / 60)
    assert found["accuracy_se"] == pytest.approx((0.75 * 0.25 / 60) ** 0.5)
    assert [row["class"] for row in found["each"]] == [0, 1, 2]
    assert [row["images"] for row in found["each"]] == [15, 35, 10]
    assert [row["accuracy"] for row in found["each"]] == pytest.approx([1.0, 20 / 35, 1.0])
    assert all(row["kid_se"] > 0 for row in found["each"])


def test_the_classifier_is_that_of_scikit_learn():
    """Of one class between two others, too, which a regression would not find."""
    labels = torch.arange(90) % 3
    draw = torch.Generator().manual_seed(3)
    y = labels[:, None] * torch.tensor([1.0, 0.5]) + 0.6 * torch.randn((90, 2), generator=draw)
    told = linear_classifier(y[:60], labels[:60])(y[60:])
    z = (y - y[:60].mean(0)) / y[:60].std(0)
    own = z[:60] - torch.stack([z[:60][labels[:60] == c].mean(0) for c in range(3)])[labels[:60]]
    covariance = own.T @ own / 60 + 0.1 * torch.eye(2)
    theirs = LinearDiscriminantAnalysis("lsqr", covariance_estimator=Fixed(covariance.numpy()))
    expected = theirs.fit(z[:60].numpy(), labels[:60].numpy()).predict(z[60:].numpy())
    assert told.tolist() == expected.tolist()
    assert len({*told.tolist()}) == 3


def pictures(seed, n=60, labelled=True):
    """Images whose brightness says their class."""
    labels = torch.arange(n) % 3
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 30, (n, 1, 8, 8), generator=draw)
    pixels = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet(
        pixels, f"set {seed}", labels=labels if labelled else None, classes=tuple("abc")
    )


def test_a_space_scores_classes_where_both_sets_have_them():
    real, other, drawn = pictures(0), pictures(1), pictures(2)
    space = Space("pixels", "held-out", Pixels(1), real, other)
    scores = space.scores(drawn)
    assert scores["accuracy"] == 1
    assert scores["class_kid"] == pytest.approx(space.class_kid(drawn).value)
    assert {"class_kid_se", "accuracy_se", "kid", "fd"} <= scores.keys()
    assert space.floor()["accuracy"] == 1
    some_wrong = replace(drawn, labels=torch.where(torch.arange(60) < 15, 0, drawn.labels))
    right = space.accuracy(some_wrong)  # a mean, whose error is that of one
    assert right.value == pytest.approx(50 / 60)
    assert right.se == pytest.approx((50 / 60 * 10 / 60 / 59) ** 0.5)
    assert (right - space.accuracy(drawn)).value == pytest.approx(-10 / 60)
    assert len(space.by_class(drawn)["each"]) == 3
    halves = Space("pixels", "held-out", Pixels(1), real)
    assert halves.floor()["accuracy"] == 1


def test_classes_of_one_image_each_are_not_compared():
    real, drawn = pictures(0), pictures(2)
    few = drawn.take(torch.arange(3))
    assert not Space("pixels", "held-out", Pixels(1), real).sees_classes_of(few)
    assert not Space("pixels", "held-out", Pixels(1), real, few).sees_classes_of(drawn)
    six = real.take(torch.arange(6))  # whose halves hold no two pairs
    assert Space("pixels", "held-out", Pixels(1), six).floor().keys() == {"fd", "kid", "kid_se"}


@pytest.mark.parametrize("which", [0, 1])
def test_without_classes_of_both_the_scores_are_those_of_before(which):
    real, drawn = pictures(0, labelled=which == 0), pictures(2, labelled=which == 1)
    space = Space("pixels", "held-out", Pixels(1), real)
    assert space.scores(drawn).keys() == {"fd", "kid", "kid_se"}
