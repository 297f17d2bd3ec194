"""Noise that a name or a seed determines, and nothing else does."""

from itertools import product

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.maths.random import JUDGE, SAMPLE, SELECT, generator, image_seeds, sample_noise
from mmd_ddm.maths.times import select_times
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.ddpm import DDPM


def test_equal_names_repeat_and_different_names_differ():
    names = list(product([0, 1, 11], [0, 1, 11], [0, 1, 11], ["noise", "order"]))
    draws = {torch.randn(4, generator=generator(*name)).numpy().tobytes() for name in names}
    assert len(draws) == len(names)
    for name in names[:5]:
        first, second = (torch.randn(4, generator=generator(*name)) for _ in range(2))
        assert torch.equal(first, second)


def test_generators_leave_the_global_one_alone():
    state = torch.random.get_rng_state()
    torch.randn(3, generator=generator(0, 0, 0, "noise"))
    sample_noise([1, 2], (1, 4, 4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_image_is_its_seeds_randn():
    noise = sample_noise(range(7, 10), (3, 8, 8))
    assert noise.shape == (1, 3, 3, 8, 8)
    for i in range(3):
        expected = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(7 + i))
        assert torch.equal(noise[0, i], expected[0])


def test_no_seed_and_no_purpose_shares_an_image():
    names = product([0, 1, 2, 10**6], [JUDGE, SELECT, "copies"])
    drawn = [seed for name in names for seed in image_seeds(*name, 200)]
    assert len(set(drawn)) == len(drawn) == 4 * 3 * 200
    assert max(drawn) < 2**63  # what a generator takes
    assert list(image_seeds(1, JUDGE, 200)) == list(image_seeds(1, JUDGE, 900))[:200]
    assert list(image_seeds(7, SAMPLE, 3)) == [7, 8, 9]  # which a person names


def test_an_image_does_not_depend_on_its_batch():
    whole = sample_noise(range(10), (1, 5, 3), draws=4)
    assert whole.shape == (4, 10, 1, 5, 3)
    parts = [sample_noise(seeds, (1, 5, 3), draws=4) for seeds in (range(3), range(3, 10))]
    assert torch.equal(whole, torch.cat(parts, dim=1))
    assert torch.equal(whole[:, 6:7], sample_noise([6], (1, 5, 3), draws=4))


def test_draws_follow_one_another():
    assert torch.equal(
        sample_noise([3, 4], (1, 8, 8), draws=5)[:2], sample_noise([3, 4], (1, 8, 8), draws=2)
    )
    first, second = sample_noise([3], (1, 8, 8), draws=2)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("family", ["ddim", "ddpm"])
def test_a_seed_names_the_picture_it_names_in_a_diffusers_pipeline(family, tiny_unet, schedule):
    """The whole path: per-image seeds, every step's noise, clipping, rounding to uint8."""
    unet, seeds, steps = tiny_unet(in_channels=3), range(5, 8), 4
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    denoiser = UNet2D(unet, schedule, shape=(3, 8, 8))
    times = select_times("leading", steps, len(schedule))
    if family == "ddim":
        pipeline = DDIMPipeline(unet, DDIMScheduler())
        options = {"eta": 1.0}
        sampler = DDIM(denoiser, times, eta=1.0, clip=True)
    else:
        pipeline = DDPMPipeline(unet, DDPMScheduler(variance_type="fixed_large"))
        options = {}
        sampler = DDPM(denoiser, times, variance="fixed-large", clip=True)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=3,
        generator=generators,
        num_inference_steps=steps,
        output_type="np",
        **options,
    ).images
    noise = sample_noise(seeds, (3, 8, 8), draws=sampler.draws)
    with torch.no_grad():
        ours = to_uint8(sampler(noise[0], noise[1:]))
    expected = torch.from_numpy((theirs * 255).round().astype("uint8")).permute(0, 3, 1, 2)
    assert int((ours.int() - expected.int()).abs().max()) <= 1  # float32 ties of the rounding
    assert float((ours != expected).float().mean()) < 0.01
    assert len(expected.unique()) > 50
