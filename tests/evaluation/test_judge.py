"""Drawing and judging: the same images at any batch size, and numbers with their protocol."""

import pytest
import torch

from mmd_ddm.config import ChainConfig
from mmd_ddm.evaluation import draw as evaluate
from mmd_ddm.evaluation.draw import draw
from mmd_ddm.evaluation.judge import Space, equal_quality_steps, judge, result_row
from mmd_ddm.evaluation.metrics import frechet_distance, kid
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.pixels import from_uint8, to_uint8
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.samplers.registry import make_sampler

SAMPLERS = ["ddim", "ddpm-large", "dpm-solver++-2m"]


def pixels(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=generator).to(torch.uint8)


def features(images):
    """`Pixels`, written down once more: 8 pixels in 7 bins that overlap by one."""
    x = from_uint8(images)
    rows = (x[:, :, 1:] + x[:, :, :-1]) / 2
    return ((rows[..., 1:] + rows[..., :-1]) / 2).flatten(1)


def space(real, other, role="held-out"):
    return Space("pixels", role, Pixels(1), features(real), features(other))


def same(a, b):
    """Equal but for what rounding to uint8 makes of the last digit of a float."""
    return (a.int() - b.int()).abs().max() <= 1 and (a != b).float().mean() < 0.01


# Drawing


@pytest.mark.parametrize("name", SAMPLERS)
def test_image_i_is_the_same_at_any_batch_size_and_count(name, denoiser):
    sampler = make_sampler(name, denoiser, (600, 300, 0))
    images, _ = draw(sampler, 7, seed=3)
    assert images.shape == (7, 1, 8, 8)
    assert images.dtype == torch.uint8
    for batch_size in (1, 2, 100):
        assert same(draw(sampler, 7, seed=3, batch_size=batch_size)[0], images)
    assert same(draw(sampler, 3, seed=3)[0], images[:3])
    assert same(draw(sampler, 4, seed=6)[0], images[3:])
    assert not same(images[1:], images[:-1])


@pytest.mark.parametrize("name", SAMPLERS)
def test_images_are_the_samplers_rounded(name, denoiser):
    sampler = make_sampler(name, denoiser, (600, 300, 0))
    z = sample_noise(range(5, 9), (1, 8, 8), 4 if name == "ddpm-large" else 1)
    with torch.no_grad():
        expected = to_uint8(sampler(z[0], z[1:] if len(z) > 1 else None))
    assert torch.equal(draw(sampler, 4, seed=5)[0], expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_walks_begin_from_noised_images_where_these_are_given(name, denoiser):
    sampler = make_sampler(name, denoiser, (200, 100, 0))
    drafts = from_uint8(pixels(20, seed=1))
    drawn = draw(sampler, 4, seed=5, batch_size=3, start=lambda seeds: drafts[seeds])[0]
    z = sample_noise(range(5, 9), (1, 8, 8), sampler.draws)
    abar = denoiser.schedule.abar(200)
    x_t = abar**0.5 * drafts[5:9] + (1 - abar) ** 0.5 * z[0]
    with torch.no_grad():
        expected = to_uint8(sampler(x_t, z[1:] if sampler.stochastic else None))
    assert same(drawn, expected)


def test_draw_needs_no_gradient_and_tells_how_far_it_is(denoiser):
    sampler, told = make_sampler("ddim", denoiser, (600, 0), recompute=True), []
    draw(sampler, 5, batch_size=2, on_batch=told.append)
    assert told == [2, 2, 1]
    assert all(p.grad is None for p in denoiser.parameters())


def test_speed_is_images_over_the_samplers_seconds(denoiser, monkeypatch):
    """A clock that runs a second at every look: one look before each batch and one after."""
    clock = iter(range(100))
    monkeypatch.setattr(evaluate.time, "monotonic", lambda: float(next(clock)))
    sampler = make_sampler("ddim", denoiser, (600, 0))
    assert draw(sampler, 7, batch_size=2)[1] == pytest.approx(7 / 4)


# Judging


def test_judge_compares_features_of_uint8_images_with_the_real_ones():
    real, other, drawn = pixels(40, 0), pixels(30, 1), pixels(25, 2) // 2
    scores = judge(drawn, [space(real, other)])["pixels"]
    assert scores["fd"] == pytest.approx(
        frechet_distance(features(drawn), features(real)), rel=1e-5
    )
    distance, error = kid(features(drawn), features(real))
    assert scores["kid"] == pytest.approx(distance, rel=1e-5)
    assert scores["kid_se"] == pytest.approx(error, rel=1e-5)
    assert set(scores) == {"fd", "kid", "kid_se"}


def test_a_space_describes_itself_with_its_floor():
    real, other = pixels(40, 0), pixels(30, 1)
    made = space(real, other, role="optimised")
    about = made.describe()
    assert about["role"] == "optimised"
    assert about["dim"] == 49
    assert about["sha256"] == Pixels(1).sha256
    # The floor is what a model that draws those other real images would get.
    assert about["floor"] == pytest.approx(judge(other, [made])["pixels"], rel=1e-5)
    assert abs(about["floor"]["kid"]) < 3 * about["floor"]["kid_se"]
    assert judge(other // 2, [made])["pixels"]["kid"] > 10 * abs(about["floor"]["kid"])


def test_every_space_is_judged_in():
    spaces = [
        Space(name, "held-out", Pixels(1), features(real), features(real))
        for name, real in (("a", pixels(20, 0)), ("b", pixels(20, 1) // 2))
    ]
    scores = judge(pixels(20, 2), spaces)
    assert list(scores) == ["a", "b"]
    assert scores["a"]["kid"] < scores["b"]["kid"]


# What is written down


@pytest.mark.parametrize(("name", "nfe"), [("ddim", 2), ("dpm-solver-2", 4), ("heun", 3)])
def test_a_row_says_how_it_was_drawn(name, nfe, denoiser):
    chain = ChainConfig(sampler=name, spacing="trailing", times=(600.0, 20.0), clip=True)
    sampler = make_sampler(name, denoiser, chain.times, clip=True)
    _, speed = draw(sampler, 2)
    scores = {"pixels": {"fd": 1.0, "kid": 0.1, "kid_se": 0.01}}
    row = result_row("base", "fashion-mnist", chain, sampler, speed, scores)
    assert row == {
        "name": "base", "model": "fashion-mnist", "sampler": name, "spacing": "trailing",
        "times": [600, 20], "eta": 0.0, "clip": True, "steps": 2, "nfe": nfe,
        "images_per_second": pytest.approx(speed, abs=0.005), "spaces": scores,
    }  # fmt: skip


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
