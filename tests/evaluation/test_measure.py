"""The one driver: a chain drawn, judged and written down; means over seeds."""

from statistics import stdev

import pytest
import torch
from estimates import estimate

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.measure import (
    Entry,
    Measured,
    drawn,
    equal_quality_steps,
    measure,
    over_seeds,
    protocol,
)
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.random import JUDGE
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.registry import make_sampler


class Bar:
    """Counts the images it is told of."""

    def __init__(self):
        self.drawn = 0

    def __call__(self, *, done=None, advance=0, note=""):
        self.drawn += advance


def entry(denoiser, name="ddim", times=(600.0, 20.0)):
    chain = ChainConfig(sampler=name, spacing="trailing", times=times, clip=True)
    sampler = make_sampler(name, denoiser, chain.times, clip=True)
    return Entry("base", "fashion-mnist", chain, sampler)


@pytest.fixture
def spaces():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 1, 8, 8), generator=generator).to(torch.uint8)
    return [Space("pixels", "held-out", Pixels(1), ImageSet(pixels, "real"))]


@pytest.mark.parametrize(
    ("name", "nfe"), [("ddim", 2), ("dpm-solver-2", 4), ("heun", 3), ("deis", 2)]
)
def test_a_row_says_how_it_was_drawn_and_what_it_scored(name, nfe, denoiser, spaces):
    bar, one = Bar(), entry(denoiser, name)
    found = measure(one, spaces, 4, 7, bar)
    row, images = found.row, found.images
    assert torch.equal(images.pixels, draw(one.sampler, 4, seed=7, purpose=JUDGE)[0])
    assert row == {
        "name": "base", "model": "fashion-mnist", "sampler": name, "spacing": "trailing",
        "times": [600, 20], "eta": 0.0, **({"order": 2} if name == "deis" else {}),
        "clip": True, "steps": 2, "nfe": nfe,
        "images_per_second": row["images_per_second"],
        "spaces": {"pixels": spaces[0].scores(images)},
    }  # fmt: skip
    assert row["images_per_second"] == round(drawn(one, 4, 7, bar)[1], 2) > 0
    assert bar.drawn == 4
    # By these names estimates pair: rows of one seed share their noise, and none with another.
    assert found.kid["pixels"].parts.keys() == {"noise of seed 7", "real"}


def test_the_same_row_is_drawn_once_and_another_one_is_drawn(denoiser, spaces):
    bar, times = Bar(), (610.0, 21.0)
    first = measure(entry(denoiser, times=times), spaces, 4, 7, bar)
    again = measure(entry(denoiser, times=times), spaces, 4, 7, bar)
    assert again.row == first.row
    assert bar.drawn == 4
    measure(entry(denoiser, times=times), spaces, 4, 8, bar)
    measure(entry(denoiser, times=(610.0, 22.0)), spaces, 4, 7, bar)
    with torch.no_grad():
        next(denoiser.network.parameters()).mul_(1.01)
    measure(entry(denoiser, times=times), spaces, 4, 7, bar)
    assert bar.drawn == 16
    more = measure(entry(denoiser, times=times), spaces, 5, 7, bar)
    assert (bar.drawn, len(more.images)) == (21, 5)


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, {3, 2}), (0, {5})])
def test_so_many_images_are_drawn_at_once_as_is_said(batch_size, sizes, denoiser, spaces):
    seen, one = set(), entry(denoiser, times=(611.0 + batch_size, 23.0))
    with denoiser.network.register_forward_pre_hook(lambda _, x: seen.add(len(x[0]))):
        found = measure(one, spaces, 5, 7, Bar(), batch_size=batch_size)
    assert seen == sizes
    assert found.images.source == "the images of fashion-mnist"


def test_the_protocol_says_of_what_and_how_every_number_is(spaces):
    real = spaces[0].real
    found = protocol(real, 8, 7, ["fd"])
    assert found.pop("noise") == "image i has that of SHA-256(seed/judge/i), in every row"
    assert found.pop("fd").startswith("Frechet distance")
    assert found == {
        "data": "real", "data_sha256": real.sha256, "real": 20, "samples": 8, "seed": 7,
        "rounding": "uint8",
    }  # fmt: skip
    assert {"kid", "fd"} <= protocol(real, 8, 7).keys()


def measured(kid, speed=1.0, seed=0, steps=5, se=0.25):
    scores = {"kid": kid, "kid_se": se, "fd": 10 * kid}
    row = {"name": "base", "steps": steps, "images_per_second": speed, "spaces": {"a": scores}}
    images = ImageSet(torch.zeros((2, 1, 1, 1), dtype=torch.uint8), "drawn")
    return Measured(row, images, {"a": estimate(kid, se, f"noise of seed {seed}")})


def test_over_seeds_is_the_mean_with_the_error_of_all_images():
    merged = over_seeds([measured(kid, kid, seed) for seed, kid in enumerate([1.0, 2.0, 6.0])])
    row = merged.row
    assert (row["name"], row["seeds"], row["images_per_second"]) == ("base", 3, 3.0)
    assert row["spaces"]["a"] == pytest.approx(
        # Three independent errors of 0.25 in KID; FD has none of its own.
        {"kid": 3.0, "kid_se": 0.25 / 3**0.5, "fd": 30.0, "fd_se": stdev([10, 20, 60]) / 3**0.5}
    )
    assert merged.kid["a"].value == pytest.approx(3.0)


def test_over_seeds_keeps_the_first_images_and_spaces_without_kid():
    found = [measured(kid, seed=seed) for seed, kid in enumerate([1.0, 2.0])]
    for one, fd in zip(found, [3.0, 5.0], strict=True):
        one.row["spaces"]["b"] = {"fd": fd}
    merged = over_seeds(found)
    assert merged.images is found[0].images
    assert merged.row["spaces"]["b"] == pytest.approx({"fd": 4.0, "fd_se": 1.0})


def test_one_seed_keeps_the_error_it_has():
    one = measured(4.0, 2.0)
    assert over_seeds([one]).row == {**one.row, "seeds": 1}


@pytest.mark.parametrize(
    ("finetuned", "base", "beaten", "better"),
    [
        (2.0, {5: 9.0, 10: 4.0, 20: 1.0}, 10, 20),
        (2.0, {5: 9.0, 10: 2.0, 20: 2.0}, 5, None),  # as good is neither
        (0.5, {5: 9.0, 10: 4.0}, 10, None),
        (9.5, {5: 9.0, 10: 4.0}, None, 5),
        (3.0, {5: 9.0, 10: 2.0, 20: 4.0}, 5, 10),  # the search ends where one is not beaten
        (3.0, {20: 4.0, 10: 2.0, 5: 9.0}, 5, 10),  # in whatever order they come
    ],
)
def test_steps_are_beaten_or_better_for_certain(finetuned, base, beaten, better):
    rows = [measured(kid, steps=steps) for steps, kid in base.items()]
    found = equal_quality_steps(rows, measured(finetuned), "a")
    assert found == {
        "space": "a", "finetuned_steps": 5, "searched": sorted(base),
        "beaten_steps": beaten, "base_steps": better,
    }  # fmt: skip


@pytest.mark.parametrize(("seed", "beaten"), [(0, 5), (1, None)])
def test_only_shared_noise_makes_a_small_difference_certain(seed, beaten):
    """A difference of one standard error: nothing between strangers, certain between pairs."""
    found = equal_quality_steps([measured(4.25, seed=seed)], measured(4.0), "a")
    assert (found["beaten_steps"], found["base_steps"]) == (beaten, None)


@pytest.mark.parametrize(("kid", "among", "beaten"), [(4.0, 1, 5), (4.0, 9, None), (9.0, 9, 5)])
def test_several_searches_err_as_one_does(kid, among, beaten):
    """Between strangers, 2.1 standard errors are enough for one test, and not for nine."""
    se = measured(1.0).kid["a"].se
    other = measured(kid - 2.1 * se * 2**0.5 if kid < 9 else 1.0, seed=1)
    found = equal_quality_steps([measured(kid)], other, "a", among)
    assert found["beaten_steps"] == beaten
