"""Our walks against diffusers' own, where those are exact."""

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from gaussian import GaussianDenoiser, noise

from mmd_ddm.maths.times import select_times
from mmd_ddm.samplers.registry import make_sampler

# diffusers holds its schedules in float32, and asks an old way for them as numpy arrays.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def their_walk(scheduler, denoiser, x):
    """diffusers' documented loop."""
    for t in scheduler.timesteps:
        eps = denoiser(scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(eps, t, x).prev_sample
    return x


@pytest.fixture
def denoiser():
    return GaussianDenoiser()


@pytest.mark.parametrize("steps", [4, 5, 10])
def test_f_pndm(denoiser, steps):
    scheduler = PNDMScheduler(skip_prk_steps=False, set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    times = select_times("leading", steps, 1000)
    sampler = make_sampler("f-pndm", denoiser, times)
    theirs = their_walk(scheduler, denoiser, noise())
    torch.testing.assert_close(sampler(noise()), theirs, **CLOSE)
    assert sampler.nfe == len(scheduler.timesteps) == steps + 9


@pytest.mark.parametrize("times", [(999, 749, 500, 250, 1), (730, 44), (999,)])
def test_heun(denoiser, times):
    scheduler = HeunDiscreteScheduler(beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(timesteps=list(times))
    alpha_t, _ = denoiser.schedule(times[0])
    sampler = make_sampler("heun", denoiser, times)
    # Theirs walks x / alpha.
    theirs = their_walk(scheduler, denoiser, noise() / alpha_t)
    torch.testing.assert_close(sampler(noise()), theirs, **CLOSE)
    assert sampler.nfe == len(scheduler.timesteps) == 2 * len(times) - 1


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("times", [(999, 700, 444, 300, 100, 0), (871, 20), (500,)])
def test_dpm_solver_pp_2m(denoiser, times, clip):
    scheduler = DPMSolverMultistepScheduler(prediction_type="sample" if clip else "epsilon")
    scheduler.set_timesteps(timesteps=list(times))

    def predict(x, t):
        eps = denoiser(x, t)
        alpha_t, sigma_t = denoiser.schedule(t)
        return ((x - sigma_t * eps) / alpha_t).clamp(-1, 1) if clip else eps

    sampler = make_sampler("dpm-solver++-2m", denoiser, times, clip=clip)
    theirs = their_walk(scheduler, predict, 3 * noise())
    torch.testing.assert_close(sampler(3 * noise()), theirs, **CLOSE)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_unipc_on_times_of_its_own(denoiser, steps):
    scheduler = UniPCMultistepScheduler(solver_order=3, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    times = select_times("trailing", steps, 1000)
    assert scheduler.timesteps.tolist() == list(times)
    theirs = their_walk(scheduler, denoiser, noise())
    ours = make_sampler("unipc", denoiser, times, order=3)(noise())
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_unipc_clips_what_it_predicts_from(denoiser):
    scheduler = UniPCMultistepScheduler(
        solver_order=3, timestep_spacing="trailing", prediction_type="sample"
    )
    scheduler.set_timesteps(5)

    def predict(x, t):
        alpha_t, sigma_t = denoiser.schedule(t)
        return ((x - sigma_t * denoiser(x, t)) / alpha_t).clamp(-1, 1)

    theirs = their_walk(scheduler, predict, 3 * noise())
    sampler = make_sampler(
        "unipc", denoiser, select_times("trailing", 5, 1000), order=3, clip=True
    )
    torch.testing.assert_close(sampler(3 * noise()), theirs, **CLOSE)


def test_unipc_walks_twice_alike(denoiser):
    sampler = make_sampler("unipc", denoiser, (999, 612.5, 300, 40))
    torch.testing.assert_close(sampler(noise()), sampler(noise()), rtol=0, atol=0)
