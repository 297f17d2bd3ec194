"""Drawing: the same images at any batch size, from any first seed, however they begin."""

import time

import pytest
import torch

from mmd_ddm.maths.pixels import from_uint8, to_uint8
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.samplers.draw import draw, draw_arc
from mmd_ddm.samplers.registry import make_sampler

SAMPLERS = ["ddim", "ddpm-large", "dpm-solver++-2m"]


def pixels(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=generator).to(torch.uint8)


def same(a, b):
    """Equal but for what rounding to uint8 makes of the last digit of a float."""
    return (a.int() - b.int()).abs().max() <= 1 and (a != b).float().mean() < 0.01


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
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    sampler = make_sampler("ddim", denoiser, (600, 0))
    assert draw(sampler, 7, batch_size=2)[1] == pytest.approx(7 / 4)


@pytest.mark.parametrize("draws", [draw, draw_arc])
def test_what_is_not_a_number_is_no_image(draws, denoiser):
    """It would be black, and be judged as if it had been drawn."""
    denoiser.network.conv_out.bias.data[:] = float("nan")
    sampler = make_sampler("ddim", denoiser, (900, 300))
    with pytest.raises(
        ValueError, match="the 2 steps of DDIM from t = 900 end in values that are"
    ):
        draws(sampler, 2, **({"frames": 3} if draws is draw_arc else {}))
