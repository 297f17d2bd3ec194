"""From settings to what is matched: every space with its features, its weight and one kernel."""

from contextlib import contextmanager

import pytest
import torch

from mmd_ddm.config import ObjectiveConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.bank import extract
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Gaussian, Polynomial
from mmd_ddm.maths.mmd import within
from mmd_ddm.runs.progress import silent
from mmd_ddm.training.objective import build_objectives

CPU = torch.device("cpu")


class Rows(FeatureExtractor):
    """The means of the rows."""

    name, dim = "rows", 8

    def forward(self, images):
        return images.mean((1, 3))


def phis():
    return {"pixels": Pixels(1), "rows": Rows()}


def reals(n=20):
    generator = torch.Generator().manual_seed(0)
    return ImageSet(torch.randint(0, 256, (n, 1, 8, 8), generator=generator).byte(), "photos")


class Told:
    """What a bar was told, and of how much."""

    def __init__(self):
        self.done, self.total, self.most = 0, 0, 0

    def say(self, text):
        pass

    @contextmanager
    def bar(self, title, total):
        self.total = total

        def update(*, done=None, advance=0, note=""):
            self.done = done if done is not None else self.done + advance
            self.most = max(self.most, self.done)

        yield update


def test_every_space_has_its_features_its_weight_and_the_kernel():
    config = ObjectiveConfig(weights=(0.3, 2.0), kernel="gaussian:2", standardise=False)
    told = Told()
    found = build_objectives(config, phis(), reals(), CPU, told)
    assert [(o.phi.name, o.weight, o.kernel) for o in found] == [
        ("pixels", 0.3, Gaussian(2.0)), ("rows", 2.0, Gaussian(2.0)),
    ]  # fmt: skip
    for objective in found:
        features = extract(reals().pixels, objective.phi)
        torch.testing.assert_close(objective.bank, features)
        assert objective.constant == pytest.approx(float(within(features, Gaussian(2.0))))
        assert objective.bank_weights is None
    assert (told.done, told.most, told.total) == (40, 40, 40)


def test_spaces_weigh_one_each_and_are_standardised_unless_told_otherwise():
    found = build_objectives(ObjectiveConfig(), phis(), reals(), CPU, silent)
    for objective in found:
        assert (objective.weight, objective.kernel) == (1.0, Polynomial())
        torch.testing.assert_close(objective.bank.std(0), torch.ones(objective.phi.dim))


def test_landmarks_are_held_in_place_of_all():
    found = build_objectives(ObjectiveConfig(landmarks=6), phis(), reals(), CPU, silent)
    assert [(len(o.bank), len(o.bank_weights)) for o in found] == [(6, 6)] * 2
    torch.manual_seed(1)
    again = build_objectives(ObjectiveConfig(landmarks=6), phis(), reals(), CPU, silent)
    for one, other in zip(found, again, strict=True):  # a run that is resumed matches the same
        assert torch.equal(one.bank, other.bank)
    as_many = build_objectives(ObjectiveConfig(landmarks=20), phis(), reals(), CPU, silent)
    assert [(len(o.bank), o.bank_weights) for o in as_many] == [(20, None)] * 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": (1.0,)}, "objective.weights has 1 entries, objective.features 2"),
        ({"reference": "batch"}, "unknown reference 'batch'; choose one of bank, minibatch"),
        ({"kernel": "cosine"}, "cosine"),
    ],
)
def test_what_cannot_be_matched_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        build_objectives(ObjectiveConfig(**settings), phis(), reals(), CPU, silent)
