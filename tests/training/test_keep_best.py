"""Which checkpoint is kept: what its KID is of, and what is told of it."""

import math

import pytest
import torch

from mmd_ddm.config import FinetuneConfig, SelectConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics import kid
from mmd_ddm.features.bank import extract
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.random import JUDGE, SELECT
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.keep_best import Selection, kept_words, selection_record, standing

CONFIG = FinetuneConfig(
    seed=7, select=SelectConfig(features="pixels", samples=6, patience=3, every=1)
)


def reals(n=20):
    generator = torch.Generator().manual_seed(0)
    return ImageSet(torch.randint(0, 256, (n, 1, 8, 8), generator=generator).byte(), "photos")


def test_a_checkpoint_is_judged_by_images_of_the_noise_of_selection(denoiser):
    """Never of the verdict's; of the same noise every time, so that two checkpoints pair."""
    phi, sampler = Pixels(1), make_sampler("ddim", denoiser, (600, 200))
    select = Selection(CONFIG, sampler, phi, reals())

    def by_hand(purpose):
        pixels, _ = draw(sampler, 6, seed=7, purpose=purpose)
        return kid(extract(pixels, phi), extract(reals().pixels, phi))

    first = select()
    assert (first.value, first.se) == pytest.approx(by_hand(SELECT))
    assert first.value != pytest.approx(by_hand(JUDGE)[0])
    assert (select() - first).se == 0
    with torch.no_grad():
        next(denoiser.network.parameters()).mul_(1.5)
    later = select()
    assert later.value != first.value
    assert (later - first).se < 0.5 * math.hypot(later.se, first.se)


EVENTS = [
    {"event": "eval", "step": 0, "kid": 0.04, "kid_se": 0.001, "kid_ci95": [0.038, 0.042]},
    {"event": "train", "step": 2, "loss": 1.0},
    {"event": "eval", "step": 2, "kid": 0.03, "kid_se": 0.001, "kid_ci95": [0.028, 0.032]},
    {"event": "eval", "step": 4, "kid": 0.02, "kid_se": 0.002, "kid_ci95": [0.016, 0.024]},
    # Of a run that was resumed twice after a fault: evaluated twice more.
    {"event": "eval", "step": 2, "kid": 0.02, "kid_se": 0.001, "kid_ci95": [0.018, 0.022]},
    {"event": "eval", "step": 2, "kid": 0.01, "kid_se": 0.002, "kid_ci95": [0.006, 0.014]},
    {"event": "train", "step": 6, "loss": 1.0},
]


def test_where_a_run_stands_is_its_last_kid_in_per_cent_of_the_bases():
    assert standing(EVENTS) == "KID 25±10%"  # 1.96 x 0.002 / 0.04
    assert standing([EVENTS[0]]) == "KID 100±5%"
    negative = [{**EVENTS[0], "kid": -0.04}, {**EVENTS[3], "kid": -0.02}]
    assert standing(negative) == "KID -50±10%"
    assert standing([{**EVENTS[0], "kid": 0.0}]) == "KID nan±nan%"


def test_the_kept_iteration_is_told_with_its_last_evaluation():
    assert kept_words(CONFIG, EVENTS, 2).startswith("kept iteration 2: KID 10 ± 4 in pixels ")
    assert kept_words(CONFIG, EVENTS, 6) is None  # trained there, but not evaluated


def test_the_record_says_what_selected():
    assert selection_record(CONFIG, reals(), EVENTS, 2) == {
        "kept_iteration": 2,
        "selection": {
            "space": "pixels", "data": "photos", "real": 20, "samples": 6, "kid": 0.01,
            "kid_ci95": [0.006, 0.014], "patience": 3,
        },
    }  # fmt: skip
    assert selection_record(CONFIG, reals(), EVENTS, 6) == {"kept_iteration": 6}
    assert selection_record(CONFIG, None, EVENTS, 2) == {"kept_iteration": 2}
