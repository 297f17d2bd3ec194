"""What diffusers draws with a scheduler's config is what the base is drawn with here."""

import inspect

import diffusers
import pytest
import torch
from commands import make_denoiser
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.jobs.chain import choose_chain, describe_chain
from mmd_ddm.jobs.compare import compare
from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.scheduler_config import SchedulerConfig
from mmd_ddm.samplers.registry import make_sampler

STOCK = [
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "LCMScheduler",
]  # fmt: skip


def drawn(folder, scheduler, spacing, prediction="epsilon", n=2):
    """K = 4 images by diffusers' DDIM with that config, and by ours; uint8 as whole numbers."""
    pipeline = DDIMPipeline(make_denoiser(3, prediction).network, scheduler)
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    images = pipeline(n, generator=generators, num_inference_steps=4, output_type="np").images
    model = load_model(str(folder))
    chain = choose_chain(model, {"steps": 4, "spacing": spacing})
    with torch.no_grad():
        ours = build_sampler(chain, model.denoiser)(sample_noise(range(n), (3, 8, 8))[0])
    theirs = torch.from_numpy((images * 255).round()).permute(0, 3, 1, 2)
    return theirs, to_uint8(ours).double(), model, chain


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "config",
    [{}, {"clip_sample": False}, {"clip_sample": False, "thresholding": True}],
    ids=["clipped", "as it is", "thresholded"],
)
def test_the_base_is_what_diffusers_draws(config, prediction, tmp_path):
    scheduler = DDIMScheduler(timestep_spacing="trailing", prediction_type=prediction, **config)
    theirs, ours, model, chain = drawn(tmp_path, scheduler, "trailing", prediction)
    assert (theirs - ours).abs().max() <= 1
    assert ours.std() > 10
    clips = config.get("clip_sample", True) or config.get("thresholding", False)
    assert (model.denoiser.clip, chain.clip) == (clips, clips)
    assert ("x_0 clipped" in describe_chain(model, chain)) == clips
    assert model.denoiser.notes == []


def test_a_schedule_without_signal_at_its_end_is_drawn_from_there(tmp_path):
    scheduler = DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        prediction_type="v_prediction",
    )  # fmt: skip
    theirs, ours, model, chain = drawn(tmp_path, scheduler, "trailing", "v_prediction")
    assert scheduler.alphas_cumprod[-1] == 0
    assert chain.times[0] == 999
    assert (theirs - ours).abs().max() <= 1
    assert ours.std() > 10
    for name in ("dpm-solver++-2m", "unipc", "heun", "ddpm-small", "deis"):
        sampler = build_sampler(ChainConfig(4, name, "trailing"), model.denoiser)
        assert sampler.draw(1).double().std() > 1


def test_the_gradient_passes_where_there_is_almost_no_signal():
    """x_0 is taken from eps, which differs from x_t by a ten-thousandth there."""
    schedule = NoiseSchedule.from_config(
        DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction").config
    )
    x_T = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    gradients = []
    for kind in (torch.float32, torch.float64):
        denoiser = make_denoiser(1, "v_prediction", schedule).to(kind)
        make_sampler("ddim", denoiser, (999, 500))(x_T.to(kind)).square().mean().backward()
        parts = [p.grad.double().flatten() for p in denoiser.parameters() if p.grad is not None]
        gradients.append(torch.cat(parts))
    single, double = gradients
    assert double.norm() > 0.1
    assert (single - double).norm() < 1e-3 * double.norm()


def test_epsilon_says_nothing_where_there_is_no_signal():
    with pytest.raises(ValueError, match=r"has zero terminal SNR: .*v_prediction"):
        SchedulerConfig.read(DDIMScheduler(rescale_betas_zero_snr=True).config)


def test_clipping_can_be_asked_for_otherwise(tmp_path):
    _, _, model, _ = drawn(tmp_path, DDIMScheduler(), "trailing")
    assert choose_chain(model).clip is True
    assert choose_chain(model, {"clip": False}).clip is False
    assert choose_chain(model, {"sampler": "ddpm-small"}).clip is True
    # diffusers' DPM-Solver reads no clip_sample.
    assert choose_chain(model, {"sampler": "dpm-solver++-2m"}).clip is False
    assert choose_chain(model, {"sampler": "dpm-solver++-2m", "clip": True}).clip is True


def test_a_comparison_walks_the_base_likewise_and_tells_what_it_does_not_use(workplace):
    scheduler = DDIMScheduler(set_alpha_to_one=False)
    DDIMPipeline(make_denoiser().network, scheduler).save_pretrained("clipping")
    samplers = ("ddim", "unipc", "heun", "ddpm-small")
    found = compare(
        "clipping", "digits.npy", samplers=samplers, spacings=("trailing",), steps=(2,), n=4,
        features=("pixels",),
    ).record  # fmt: skip
    clips = {row["sampler"]: row["clip"] for row in found["rows"]}
    assert clips == {"ddim": True, "unipc": False, "heun": True, "ddpm-small": True}
    assert found["notes"] == ["not used of its scheduler config: set_alpha_to_one"]


@pytest.mark.parametrize(
    ("config", "prediction"),
    [
        ({}, "epsilon"),
        ({"predict_epsilon": True}, "epsilon"),
        ({"predict_epsilon": False}, "sample"),
        ({"predict_epsilon": False, "prediction_type": "sample"}, "sample"),
        ({"prediction_type": "v_prediction"}, "v_prediction"),
    ],
)
def test_what_the_network_predicts_is_said_in_two_ways(config, prediction):
    understood = SchedulerConfig.read(config)
    assert understood.prediction == prediction
    assert "predict_epsilon" not in understood.content  # which stock schedulers ignore
    assert understood.content.get("prediction_type", "epsilon") == prediction
    assert understood.unused == ()


@pytest.mark.parametrize(
    ("config", "clip"),
    [
        ({"_class_name": "PNDMScheduler", "beta_start": 1e-4}, False),
        ({"_class_name": "DDPMScheduler", "beta_start": 1e-4}, True),
        ({"clip_sample": None}, False),
        ({}, True),  # an early one
    ],
)
def test_where_a_config_is_silent_its_class_decides(config, clip):
    assert SchedulerConfig.read(config).clip == clip


@pytest.mark.parametrize("name", STOCK)
def test_every_key_of_a_stock_scheduler_has_its_place(name):
    """None is taken for unknown, with the values that the class has by default."""
    kind = getattr(diffusers, name)
    given = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    at_abar_0 = ("set_alpha_to_one",) if name == "PNDMScheduler" else ()
    assert SchedulerConfig.read({"_class_name": name, **given}).unused == at_abar_0


@pytest.mark.parametrize(
    "config",
    [
        {"clip_sample_range": 2.0},
        {"set_alpha_to_one": False},
        {"thresholding": True, "sample_max_value": 1.5},
        {"use_flow_sigmas": True},
        {"of_the_future": 0},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_is_not_used_is_named(config):
    assert SchedulerConfig.read(config).unused == (next(iter(config)),)
    denoiser = make_denoiser()
    found = type(denoiser).around(denoiser.network, config, "a model")
    assert found.notes == [f"not used of its scheduler config: {next(iter(config))}"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"predict_epsilon": False, "prediction_type": "epsilon"}, "predict_epsilon .* is False"),
        ({"clip_sample": "maybe"}, "clip_sample of the scheduler is 'maybe': true or false"),
        ({"thresholding": 2}, "thresholding of the scheduler is 2: true or false"),
        ({"num_train_timesteps": 0}, "num_train_timesteps of the scheduler is 0: a whole number"),
        ({"num_train_timesteps": 1000.5}, "is 1000.5: a whole number"),
        ({"num_train_timesteps": 10**12}, "from 1 to 1,000,000"),
        ({"beta_start": "small"}, "beta_start of the scheduler is 'small': a number"),
        ({"beta_end": None}, "beta_end of the scheduler is None: a number"),
        ({"beta_end": float("nan")}, "decrease strictly"),
        ({"trained_betas": [0.1, 0.2]}, "has 2 values, but num_train_timesteps is 1000"),
        ({"beta_schedule": "none"}, "unknown beta schedule 'none'"),
        ({"_class_name": "SCMScheduler"}, "SCMScheduler has no betas, and is none of"),
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 90.0}, "below sigma_max"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "epsilon or v_pre"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, "must be above 0"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
            "set a fixed shift",
        ),
    ],
)
def test_a_config_that_no_model_has_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        SchedulerConfig.read(config)


def test_the_config_of_a_class_is_read_as_it_is():
    config = DDPMScheduler(num_train_timesteps=3, trained_betas=[0.1, 0.2, 0.3]).config
    understood = SchedulerConfig.read(config)
    assert understood.content == dict(config)
    assert len(understood.schedule) == 3
