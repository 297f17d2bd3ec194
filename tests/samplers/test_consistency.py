"""Re-noising, as diffusers' own scheduler of it does."""

import pytest
import torch
from diffusers import DiffusionPipeline, LCMScheduler

import mmd_ddm as mmd
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.models.export import export


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_stock_pipeline_draws_the_same_images(steps, clip, workplace):
    model = mmd.load("base")
    chain = mmd.Chain(steps, "consistency", "trailing", clip=clip)
    sampler = mmd.build_sampler(chain, model.denoiser)
    held = {**vars(chain), "times": sampler.times}
    export(model.denoiser, model.scheduler_config, held, workplace / "out")
    pipeline = DiffusionPipeline.from_pretrained(workplace / "out")
    assert type(pipeline.scheduler) is LCMScheduler
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    images = pipeline(2, num_inference_steps=steps, generator=generators, output_type="np").images
    z = sample_noise(range(2), sampler.denoiser.shape, sampler.draws)
    with torch.no_grad():
        expected = sampler(z[0], z[1:])
    expected = (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert abs(images - expected.numpy()).max() <= 1e-4
    assert mmd.load(str(workplace / "out")).chain.sampler == "consistency"


def test_other_times_are_never_drawn_otherwise(workplace):
    model = mmd.load("base")
    held = {**vars(mmd.Chain(2, "consistency", clip=False)), "times": (900, 300)}
    export(model.denoiser, model.scheduler_config, held, workplace / "out")
    pipeline = DiffusionPipeline.from_pretrained(workplace / "out", trust_remote_code=True)
    with pytest.raises(ValueError, match="sampler consistency, which this scheduler cannot"):
        pipeline(1, num_inference_steps=2)
