"""Who may see which images, and which noise: what no number of a single row can tell."""

import hashlib
from itertools import combinations

import pytest
import torch

import mmd_ddm as mmd
from mmd_ddm.evaluation.metrics import frechet_distance, kid
from mmd_ddm.features.bank import extract
from mmd_ddm.features.registry import make_features
from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.registry import SAMPLERS

# Different numbers of images tell apart what a walk was for.
BATCH, SELECTED, JUDGED = 4, 6, 8


@pytest.fixture
def noise(monkeypatch):
    """Hashes of the noise of every walk so far: ``[(n, hash of each image), ...]``."""
    walks = []

    class Spy(DDIM):
        def forward(self, x_T, noise=None, condition=None):
            hashes = [
                hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in x_T.detach()
            ]
            walks.append((len(x_T), tuple(hashes)))
            return super().forward(x_T, noise, condition)

    monkeypatch.setitem(SAMPLERS, "spy", Spy)
    return walks


def finetune(out, sampler="ddim", **settings):
    small = {
        "iterations": 2, "batch_size": BATCH, "judge_samples": JUDGED, "compare_steps": [4],
        "select": {"samples": SELECTED, "features": "encoder", "every": 1},
        "features": ["pixels"], "judges": ["random"], "micro_batch": BATCH,
    }  # fmt: skip
    photos = mmd.images("digits.npy").split(settings.get("seed", 0))
    return mmd.finetune(
        "base", photos, mmd.Chain(3, sampler), out=out, **{**small, **settings}
    ), photos


def by_size(walks, n):
    return [hashes for size, hashes in walks if size == n]


def test_training_selection_and_verdict_share_no_noise(workplace, noise):
    result, _ = finetune("run", "spy")
    trained, selected, judged = (by_size(noise, n) for n in (BATCH, SELECTED, JUDGED))
    assert len(trained) == 2
    assert len(selected) == 3  # before, and after each iteration
    # The base at 3 and 4 steps, and the finetuned model if it is another one.
    assert len(judged) == 2 + (result.best_iteration > 0)
    assert len(set(selected)) == len(set(judged)) == 1  # so that differences pair
    seen = [{h for walk in walks for h in walk} for walks in (trained, selected, judged)]
    assert [len(part) for part in seen] == [2 * BATCH, SELECTED, JUDGED]
    for one, other in combinations(seen, 2):
        assert not one & other


@pytest.mark.slow
def test_seeds_share_no_noise_in_any_job(workplace, noise):
    """Neither of runs, nor of one evaluation, nor of one comparison."""
    finetune("run-0", "spy")
    finetune("run-1", "spy", seed=1)
    first, second = dict.fromkeys(by_size(noise, JUDGED))
    assert not {*first} & {*second}
    noise.clear()
    mmd.evaluate(
        "base",
        "digits.npy",
        {"steps": 3, "sampler": "spy"},
        features=["pixels"],
        n=JUDGED,
        seeds=3,
    )
    evaluated = list(noise)
    noise.clear()
    mmd.compare(
        "base", "digits.npy", samplers=["spy"], spacings=["trailing"], steps=[3],
        features=["pixels"], n=JUDGED, seeds=2,
    )  # fmt: skip
    for walks in (evaluated, noise):
        drawn = [h for _, hashes in walks for h in hashes]
        assert len(set(drawn)) == len(drawn) >= 2 * JUDGED
    assert evaluated[0] == (JUDGED, first)  # which the verdict of seed 0 saw as well


def test_the_floor_is_of_images_that_are_not_those_compared_with(workplace):
    result, photos = finetune("run")
    held_out = {image.numpy().tobytes() for image in photos.heldout.pixels}
    matched = photos.matched.subset(JUDGED).pixels
    assert not held_out & {image.numpy().tobytes() for image in matched}
    for name, about in result.record["spaces"].items():
        phi = make_features(name, 1)
        x, y = extract(matched, phi), extract(photos.heldout.pixels, phi)
        assert about["floor"]["fd"] == pytest.approx(frechet_distance(x, y), rel=1e-4, abs=1e-9)
        value, error = kid(x, y)
        assert about["floor"]["kid"] == pytest.approx(value, rel=1e-3, abs=1e-3 * error)
        assert about["floor"]["kid_se"] == pytest.approx(error, rel=1e-3)


def test_the_floor_of_an_evaluation_is_of_two_halves(workplace):
    """As of any two; a set against itself has an FD of 0."""
    found = mmd.evaluate("base", "digits.npy", {"steps": 3}, features=["pixels"], n=4)
    floor = found.record["spaces"]["pixels"]["floor"]
    assert floor["fd"] > 0.1
    phi, real = make_features("pixels", 1), mmd.images("digits.npy").pixels
    features = extract(real, phi)
    half = len(real) // 2
    draws = [
        torch.randperm(len(real), generator=torch.Generator().manual_seed(s)) for s in range(20)
    ]
    values = torch.tensor([kid(features[o[:half]], features[o[half:]])[0] for o in draws])
    assert abs(floor["kid"] - float(values.mean())) < 4 * float(values.std())


def test_what_is_matched_neither_judges_nor_selects(workplace):
    _, photos = finetune("run")
    parts = [
        {image.numpy().tobytes() for image in part.pixels}
        for part in (photos.matched, photos.selection, photos.heldout)
    ]
    for one, other in combinations(parts, 2):
        assert not one & other
    recorded = mmd.images("digits.npy")
    assert set().union(*parts) <= {image.numpy().tobytes() for image in recorded.pixels}
