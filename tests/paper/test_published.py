"""The published figures: copied right, each with a source, none twice."""

from collections import Counter
from dataclasses import replace

import pytest

from mmd_ddm.paper.published import published, published_figures

INCEPTION = "DDIM + MMD-DDM (Inception-V3)"
PRINTED = dict(
    zip("I II III IV V VI VII VIII IX".split(), (39, 34, 18, 15, 24, 9, 6, 12, 48), strict=True)
)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("I", "CIFAR-10", "FID", "DPM-Solver (Type-1)", 15), 3.78),
        (("I", "CIFAR-10", "FID", "FastDPM", 20), 5.05),
        (("II", "CelebA", "FID", "Analytic-DDIM", 20), 10.45),
        (("III", "ImageNet", "FID", "DPM-Solver (Type-2)", 20), 18.53),
        (("IV", "LSUN-Church", "FID", INCEPTION, 10), 7.55),
        (("V", "CelebA", "FID_CLIP", INCEPTION, 5), 4.94),
        (("VII", "CIFAR-10", "FID", "Quadratic", 5), 5.19),
        (("VIII", "CIFAR-10", "FID", "DDPM + MMD-DDM", 10), 5.19),
        (("IX", "CIFAR-10", "Recall", "MMD-DDM (Inception-V3)", 15), 0.60),
        (("I", "CIFAR-10", "FID", "FastDPM", 5), None),
        (("I", "CelebA", "FID", "DDIM", 5), None),
    ],
)
def test_published(place, value):
    assert published(*place) == value


def test_every_number_of_the_paper_is_there():
    assert Counter(f.table for f in published_figures() if f.table) == PRINTED


def test_no_number_twice_and_each_with_a_source():
    figures = published_figures()
    assert max(Counter(replace(f, value=0) for f in figures).values()) == 1
    assert all(f.source and f.value > 0 and f.steps > 0 for f in figures)


@pytest.mark.parametrize(
    ("dataset", "metric", "improvements"),
    [
        ("CIFAR-10", "FID", (-83.2, -72.0)),
        ("CIFAR-10", "FID_CLIP", (-84.4, -70.7)),
        ("CelebA", "FID", (-86.4, -85.0)),
        ("CelebA", "FID_CLIP", (-59.3, -55.0)),
        ("ImageNet", "FID", (-74.8, -40.0)),
        ("ImageNet", "FID_CLIP", (None, -22.6)),
    ],
)
def test_the_improvements_that_table_v_prints_follow(dataset, metric, improvements):
    """A digit copied wrong would show: the paper prints the quotients as well.

    One of them, -56.8 % for 29.5 and 15.2, is not their quotient in print either.
    """
    for steps, improvement in zip((5, 10), improvements, strict=True):
        if improvement is None:
            continue
        base, finetuned = (
            published("V", dataset, metric, method, steps) for method in ("DDIM", INCEPTION)
        )
        assert 100 * (finetuned / base - 1) == pytest.approx(improvement, abs=0.25)


def test_tables_repeat_each_other():
    for steps in (5, 10, 20):
        cubic = published("VI", "CIFAR-10", "FID", "Cubic", steps)
        assert cubic == published("I", "CIFAR-10", "FID", INCEPTION, steps)
        assert cubic == published("VII", "CIFAR-10", "FID", "Linear", steps)
        assert cubic == published("VIII", "CIFAR-10", "FID", "DDIM + MMD-DDM", steps)
