"""What every family shares: the pair (x_0, eps), and a fingerprint of all that decides it."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

from mmd_ddm.jobs.build import load_model
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.load import load_denoiser
from mmd_ddm.samplers.registry import make_sampler


@pytest.mark.parametrize("t", [20.5, torch.tensor([20.0, 700.0], dtype=torch.float64)], ids=str)
def test_the_pair_is_what_x_t_is_made_of(t, denoiser64):
    x_t = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_0, eps = denoiser64.predict(x_t, t)
    assert torch.equal(eps, denoiser64(x_t, t))
    if isinstance(t, torch.Tensor):
        alpha_t, sigma_t = denoiser64.coefficients(t)
    else:
        alpha_t, sigma_t = denoiser64.schedule(t)
    torch.testing.assert_close(alpha_t * x_0 + sigma_t * eps, x_t, rtol=1e-9, atol=1e-9)


def test_pixels_are_images_and_nothing_is_drawn_under_a_condition(denoiser):
    x_0 = torch.randn(2, 1, 8, 8)
    assert denoiser.to_images(x_0) is x_0
    assert denoiser.conditions(range(2)) is None


def test_images_are_of_all_classes_by_turns_unless_others_are_asked_for(tiny_unet, schedule):
    model = UNet2D(tiny_unet(num_class_embeds=4), schedule, shape=(1, 8, 8))
    before = model.sha256
    model.classes, model.null_label = ("a", "b", "c"), 3
    assert model.conditions(range(5, 9)).labels.tolist() == [2, 0, 1, 2]
    assert model.no_class(2).labels.tolist() == [3, 3]
    named = model.sha256
    model.null_label = None
    assert len({before, named, model.sha256}) == 3
    with pytest.raises(ValueError, match="a label that means no class"):
        model.no_class(2)


def test_equal_models_have_one_fingerprint_and_any_change_another(tiny_unet, schedule):
    def make(seed=0, schedule=schedule, prediction="epsilon", autocast=None, **config):
        return UNet2D(
            tiny_unet(seed=seed, **config), schedule, prediction, shape=(1, 8, 8),
            autocast=autocast,
        )  # fmt: skip

    assert make().fingerprint == make().fingerprint
    fast = make()
    fast.network.to(memory_format=torch.channels_last)
    changed = [
        make(),
        make(seed=1),
        make(schedule=NoiseSchedule.linear(beta_end=0.03)),
        make(prediction="v_prediction"),
        make(autocast=torch.bfloat16),
        make(act_fn="mish"),  # which the weights do not show
        fast,
    ]
    assert len({denoiser.fingerprint for denoiser in changed}) == len(changed)


def test_any_change_of_the_chain_has_another_fingerprint(denoiser):
    def of(name="ddim", times=(600, 300), **options):
        return make_sampler(name, denoiser, times, **options).fingerprint

    assert of() == of()
    assert of(recompute=True) == of()  # it draws the same
    changed = [
        of(),
        of(times=(600, 301)),
        of(eta=0.5),
        of(clip=True),
        *(of(f"dpm-solver-{order}") for order in (2, 3)),
        *(of(f"dpm-solver++-{order}m") for order in (2, 3)),
        *(of(f"ddpm-{variance}") for variance in ("small", "large")),
        of("fastdpm-var", (500, 400, 3)),
        of("fastdpm-var-quadratic", (500, 400, 3)),
    ]
    assert len(set(changed)) == len(changed)


@pytest.mark.parametrize(
    "kind", [(DDPMPipeline, DDPMScheduler), (DDIMPipeline, DDIMScheduler)], ids=str
)
def test_a_live_pipeline_is_read_and_stays_as_it_is(kind, tiny_unet, tmp_path):
    make, scheduler = kind
    pipeline = make(tiny_unet().half(), scheduler(beta_end=0.03))
    pipeline.save_pretrained(tmp_path / "saved")
    live, saved = load_denoiser(pipeline), load_denoiser(tmp_path / "saved")
    assert live.fingerprint == saved.fingerprint
    assert (live.source, live.shape) == ("", (1, 8, 8))
    with torch.no_grad():
        next(live.network.parameters()).mul_(2)
    assert load_denoiser(pipeline).fingerprint == saved.fingerprint
    assert next(pipeline.unet.parameters()).dtype == torch.float16
    model = load_model(pipeline)
    assert (model.name, model.chain) == ("pipeline", None)
    assert model.scheduler_config["beta_end"] == 0.03


def test_a_pipeline_that_is_no_pixel_model_is_refused_in_one_line(tiny_unet):
    for parts, said in (
        ({"unet": tiny_unet(), "vae": None}, "is a latent diffusion model"),
        ({"transformer": None}, "holds a NoneType; a UNet2DModel is needed"),
        ({"unet": tiny_unet(class_embed_type="identity")}, "is told classes by class_embed_type"),
    ):
        with pytest.raises(ValueError, match=f"SimpleNamespace {said}") as caught:
            load_model(SimpleNamespace(components=parts))
        assert "\n" not in str(caught.value)
