"""The one driver: a chain drawn, judged and written down; means over seeds."""

from statistics import stdev

import pytest
import torch

from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.measure import Entry, equal_quality_steps, measure, over_seeds
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.pixels import Pixels
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


@pytest.mark.parametrize(("name", "nfe"), [("ddim", 2), ("dpm-solver-2", 4), ("heun", 3)])
def test_a_row_says_how_it_was_drawn_and_what_it_scored(name, nfe, denoiser, spaces):
    bar, one = Bar(), entry(denoiser, name)
    row, images = measure(one, spaces, 4, 7, bar)
    assert torch.equal(images.pixels, draw(one.sampler, 4, seed=7)[0])
    assert row == {
        "name": "base", "model": "fashion-mnist", "sampler": name, "spacing": "trailing",
        "times": [600, 20], "eta": 0.0, "clip": True, "steps": 2, "nfe": nfe,
        "images_per_second": row["images_per_second"],
        "spaces": {"pixels": spaces[0].scores(images)},
    }  # fmt: skip
    assert row["images_per_second"] > 0
    assert bar.drawn == 4


def test_the_same_row_is_drawn_once_and_another_one_is_drawn(denoiser, spaces):
    bar, times = Bar(), (610.0, 21.0)
    first, _ = measure(entry(denoiser, times=times), spaces, 4, 7, bar)
    again, _ = measure(entry(denoiser, times=times), spaces, 4, 7, bar)
    assert again == first
    assert bar.drawn == 4
    measure(entry(denoiser, times=times), spaces, 4, 8, bar)
    measure(entry(denoiser, times=(610.0, 22.0)), spaces, 4, 7, bar)
    with torch.no_grad():
        next(denoiser.network.parameters()).mul_(1.01)
    measure(entry(denoiser, times=times), spaces, 4, 7, bar)
    assert bar.drawn == 16


def row_of(kid, speed):
    scores = {"kid": kid, "kid_se": 0.25, "fd": 10 * kid}
    return {"name": "base", "images_per_second": speed, "spaces": {"pixels": scores}}


def test_over_seeds_is_mean_and_standard_error():
    merged = over_seeds([row_of(1.0, 1.0), row_of(2.0, 2.0), row_of(6.0, 6.0)])
    error = stdev([1.0, 2.0, 6.0]) / 3**0.5
    assert (merged["name"], merged["seeds"], merged["images_per_second"]) == ("base", 3, 3.0)
    assert merged["spaces"]["pixels"] == pytest.approx(
        {"kid": 3.0, "kid_se": error, "fd": 30.0, "fd_se": 10 * error}
    )


def test_one_seed_keeps_the_error_it_has():
    one = row_of(4.0, 2.0)
    assert over_seeds([one]) == {**one, "seeds": 1}


def rows(finetuned, **base):
    made = [{"name": "finetuned", "steps": 5, "spaces": {"a": {"kid": finetuned}}}]
    for steps, value in base.items():
        scores = {"a": {"kid": value}, "b": {"kid": 0.0}}
        made.insert(0, {"name": "base", "steps": int(steps[1:]), "spaces": scores})
    return made


@pytest.mark.parametrize(
    ("finetuned", "base", "steps"),
    [
        (2.0, {"k5": 9.0, "k10": 4.0, "k20": 2.0, "k50": 1.0}, 20),  # as good is enough
        (1.9, {"k5": 9.0, "k10": 4.0, "k20": 2.0, "k50": 1.0}, 50),
        (0.5, {"k5": 9.0, "k10": 4.0, "k20": 2.0, "k50": 1.0}, None),
        (9.5, {"k5": 9.0, "k10": 4.0}, 5),
        (3.0, {"k5": 9.0, "k10": 2.0, "k20": 4.0}, 10),  # the fewest, though more are worse
        (3.0, {"k20": 2.0, "k10": 2.5, "k5": 9.0}, 10),  # in whatever order they come
        (-0.1, {"k5": 0.2, "k10": -0.2}, 10),
        (1.0, {}, None),
    ],
)
def test_equal_quality_is_the_fewest_steps_of_the_base(finetuned, base, steps):
    found = equal_quality_steps(rows(finetuned, **base), "a")
    assert found == {
        "space": "a",
        "base_steps": steps,
        "finetuned_steps": 5,
        "searched": sorted(int(key[1:]) for key in base),
    }
