"""Converted checkpoints answer as their own layouts do, by formulas that share no code with us."""

import math
import pickle

import layouts
import pytest
import torch
from commands import mmd_ddm
from diffusers import DiffusionPipeline

from mmd_ddm.jobs.build import load_model
from mmd_ddm.models.convert import convert_checkpoint
from mmd_ddm.models.export import export

DDPM = {"ch": 32, "mult": (1, 2), "layers": 2, "attends": (1,)}
IMPROVED = {"ch": 32, "mult": (1, 2, 3), "layers": 1, "attends": (1, 2), "heads": 4}
TIMES = torch.tensor([437.0, 0.0, 999.0])


def images() -> torch.Tensor:
    return torch.randn((3, 3, 8, 8), generator=torch.Generator().manual_seed(1))


def original(layout, **shape):
    """A layout's random weights, and what it answers with them."""
    weights = layouts.Weights()
    with torch.no_grad():
        answer = layout(weights, images(), TIMES, **shape)
    return weights.state, answer[:, :3]


def saved(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    return tmp_path / "net.pt"


def same(denoiser, answer):
    with torch.no_grad():
        got = denoiser(images(), TIMES)
    return float((got - answer).norm() / answer.norm()) < 1e-5


def test_ddpm_checkpoint(tmp_path):
    state, answer = original(layouts.ddpm, **DDPM)
    denoiser, config = convert_checkpoint(saved(tmp_path, state), image_size=8)
    assert same(denoiser, answer)
    assert config["beta_end"] == 0.02
    assert denoiser.shape == (3, 8, 8)


def test_of_a_training_state_the_averaged_weights_are_taken(tmp_path):
    state, answer = original(layouts.ddpm, **DDPM)
    raw = {f"module.{key}": torch.zeros_like(value) for key, value in state.items()}
    optimiser = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
    path = saved(tmp_path, [raw, optimiser, 7, 1000, state])
    assert same(convert_checkpoint(path, image_size=8)[0], answer)
    prefixed = {f"module.{key}": value for key, value in state.items()}
    assert same(convert_checkpoint(saved(tmp_path, prefixed), image_size=8)[0], answer)


@pytest.mark.parametrize(
    ("wrapped", "place"),
    [
        (lambda good, bad: {"model": good, "step": 7, "optimizer": {"lr": 1e-4}}, "model"),
        (lambda good, bad: {"state_dict": good, "loss": torch.ones(1)}, "state_dict"),
        (lambda good, bad: {"model": bad, "ema": good, "iteration": torch.tensor(3)}, "ema"),
        (lambda good, bad: {"net": bad, "model_ema": good}, "model_ema"),
        (lambda good, bad: {"ema": {"decay": 0.999, "shadow": None}, "model": good}, "model"),
        (lambda good, bad: {"state_dict": prefixed(good, "model.")}, "state_dict"),
        (lambda good, bad: {"ema": prefixed(good, "module.model.")}, "ema"),
        (lambda good, bad: {"ema": prefixed(good, "ema_model.")
            | prefixed(bad, "online_model.") | {"step": torch.tensor(3)}}, "ema"),
    ],
    ids=["model", "state_dict", "ema", "model_ema", "no tensors", "lightning", "parallel", "both"],
)  # fmt: skip
def test_weights_one_level_in_are_found_and_the_place_is_said(tmp_path, wrapped, place):
    state, answer = original(layouts.ddpm, **DDPM)
    bad = {key: torch.zeros_like(value) for key, value in state.items()}
    denoiser, _ = convert_checkpoint(saved(tmp_path, wrapped(state, bad)), image_size=8)
    assert same(denoiser, answer)
    assert denoiser.notes == [f"weights: {place}"]


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


def test_the_command_says_which_weights_it_took(tmp_path):
    state, _ = original(layouts.ddpm, **DDPM)
    saved(tmp_path, {"model": state, "ema": state})
    done = mmd_ddm(tmp_path, "convert", "net.pt", "--out", "net", "--image-size", 8)
    assert done.out.splitlines()[-1].endswith("in 3 channels, weights: ema")
    assert "weights: ema" in (tmp_path / "net" / "README.md").read_text()


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["model.map_layer0.weight", "model.enc.32x32_conv.weight"], "the layout of EDM"),
        (["input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight",
          "output_blocks.2.1.in_layers.0.weight"], "the layout of guided-.* with resblock"),
        (["input_blocks.0.0.weight", "label_emb.weight"], "the layout of a class-cond"),
        (["model.init_conv.weight", "model.downs.0.0.block1.proj.weight", "betas"],
         "the layout of lucidrains/denoising-diffusion-pytorch"),
        (["conv_in.weight", "time_embedding.linear_1.weight"], "diffusers' own layout .*config"),
        (["model.diffusion_model.out.0.weight", "first_stage_model.conv.weight"],
         "the layout of a latent diffusion model"),
    ],
)  # fmt: skip
def test_layouts_that_are_not_converted_are_named(tmp_path, keys, name):
    path = saved(tmp_path, {"model": dict.fromkeys(keys, torch.ones(1))})
    with pytest.raises(ValueError, match=f"net.pt has {name}.*, which is not converted") as caught:
        convert_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "EqualHeadsUNet2DModel"),
        ({"mult": (1, 2, 2)}, "UNet2DModel"),
        ({"heads": 1, "scale_shift": False, "attends": (1,)}, "UNet2DModel"),
    ],
    ids=["equal heads", "equal widths", "one head"],
)
def test_improved_diffusion_checkpoint(tmp_path, change, kind):
    shape = {**IMPROVED, **change}
    state, answer = original(layouts.improved, **shape)
    halves = {key: value.half() for key, value in state.items()} if not change else state
    denoiser, _ = convert_checkpoint(saved(tmp_path, state), image_size=8, heads=shape["heads"])
    assert type(denoiser.network).__name__ == kind
    assert same(denoiser, answer)
    loose, _ = convert_checkpoint(saved(tmp_path, halves), image_size=8, heads=shape["heads"])
    assert {p.dtype for p in loose.network.parameters()} == {torch.float32}


def test_the_size_of_the_images_is_that_at_which_attention_begins_at_16(tmp_path):
    path = saved(tmp_path, original(layouts.ddpm, **DDPM)[0])
    assert convert_checkpoint(path)[0].shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_schedule_is_every_fourth_time_of_the_original(tmp_path, kind):
    path = saved(tmp_path, original(layouts.improved, **IMPROVED)[0])
    got = convert_checkpoint(path, noise_schedule=kind)[0].schedule.alpha_bar
    abar, expected = 1.0, []
    for i in range(4000):
        f = [math.cos((j / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 for j in (i, i + 1)]
        linear = (1e-4 + (0.02 - 1e-4) * i / 3999) / 4
        abar *= 1 - (min(1 - f[1] / f[0], 0.999) if kind == "cosine" else linear)
        expected += [abar] if i % 4 == 0 else []
    assert torch.allclose(got, torch.tensor(expected, dtype=got.dtype), rtol=1e-3, atol=1e-6)


def test_convert_writes_a_folder_that_every_verb_and_diffusers_load(tmp_path):
    state, answer = original(layouts.improved, **IMPROVED)
    saved(tmp_path, state)
    words = ("convert", "net.pt", "--out", "net", "--image-size", "8")
    done = mmd_ddm(tmp_path, *words)
    assert done.code == 0, done.err
    assert "saved net: " in done.out
    folder = tmp_path / "net"
    assert "trust_remote_code=True" in (folder / "README.md").read_text()
    model = load_model(str(folder))
    assert same(model.denoiser, answer)
    assert mmd_ddm(tmp_path, *words).err.startswith("mmd-ddm: error: net exists")

    chain = {"sampler": "ddim", "eta": 0.0, "clip": False, "times": (500, 0)}
    export(model.denoiser, model.scheduler_config, chain, tmp_path / "again")
    assert same(load_model(str(tmp_path / "again")).denoiser, answer)
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(folder)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert torch.equal(pipeline.unet(images(), 437).sample[:1], model.denoiser(images(), 437)[:1])


class TestErrors:
    @pytest.mark.parametrize(
        ("content", "options", "said"),
        [
            (
                {"weight": torch.ones(2)},
                {},
                "unknown layout .its first weight is 'weight'.*only pesser",
            ),
            ({"optimizer": {}, "step": 3}, {}, "holds no weights: .* under ema, model_ema"),
            ([1, 2], {}, "holds no weights"),
            ("improved", {"heads": 3}, "--heads 3 does not divide"),
            ("improved", {"heads": 0}, "--heads 0 does not divide"),
            ("improved", {"diffusion_steps": 1500}, "multiple of 1000; got 1500"),
            ("improved", {"noise_schedule": "sine"}, "unknown schedule 'sine'"),
            ("ddpm", {"image_size": 7}, "net.pt cannot be called with an image of 3x7x7"),
            ("ddpm", {"image_size": 0}, "sample_size of .*net.pt is 0"),
            ("ddpm", {"heads": 2}, "--heads 2: checkpoints of this layout have no choice"),
        ],
    )
    def test_what_does_not_fit_is_told(self, tmp_path, content, options, said):
        shapes = {"improved": IMPROVED, "ddpm": DDPM}
        if isinstance(content, str):
            content = original(getattr(layouts, content), **shapes[content])[0]
        with pytest.raises(ValueError, match=said):
            convert_checkpoint(saved(tmp_path, content), **options)

    def test_class_conditional_and_incomplete_checkpoints_are_refused(self, tmp_path):
        state = original(layouts.improved, **IMPROVED)[0]
        labelled = {**state, "label_emb.weight": torch.ones(10, 128)}
        with pytest.raises(ValueError, match="unconditional"):
            convert_checkpoint(saved(tmp_path, labelled))
        del state["out.2.bias"]
        with pytest.raises(ValueError, match="incomplete, or altered"):
            convert_checkpoint(saved(tmp_path, state))

    def test_code_is_not_unpickled(self, tmp_path):
        path = tmp_path / "net.pt"
        path.write_bytes(pickle.dumps(pytest.approx))
        with pytest.raises(ValueError, match="pickled code is never run"):
            convert_checkpoint(path)
