"""What `plan` says of pipelines of latents, from their configs alone."""

import json

import pytest
import torch
import transformers
from commands import mmd_ddm
from diffusers import PNDMScheduler
from tiny_pipelines import clip_tokenizer, tiny_pipeline

from mmd_ddm.config import ChainConfig, FinetuneConfig, ObjectiveConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.jobs.sizes import sizes_of
from mmd_ddm.models.valueless import Valueless, without_values
from mmd_ddm.training.memory_count import count

GIB = 2**30
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and diffusers, of themselves


def configs_of_stable_diffusion(folder):
    """Those of 1.5, written by hand; the tokenizer, which counts nothing, is a small one."""
    halves = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
    parts = {
        "unet": {
            "_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        "vae": {
            "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
            "down_block_types": halves[0], "up_block_types": halves[1], "layers_per_block": 2,
            "latent_channels": 4, "sample_size": 512,
        },
    }  # fmt: skip
    for part, config in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, projection_dim=768,
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        skip_prk_steps=True,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.slow
def test_stable_diffusion_at_512_pixels(tmp_path):
    """Its published sizes, and bytes that fake tensors counted on their own (docs/models.md)."""
    configs_of_stable_diffusion(tmp_path / "sd")
    config = FinetuneConfig(
        chain=ChainConfig(steps=4), objective=ObjectiveConfig(features=("pixels",))
    )
    sizes = sizes_of(config, tmp_path / "sd")
    assert sizes.parts["network"] == ("UNet2DConditionModel", 859_520_964)
    assert sizes.parts["text"] == ("CLIPTextModel", 123_060_480)
    assert sizes.parts["decoder"] == ("AutoencoderKL", 49_490_179)
    ways = {(way.trained, way.half, way.blocks): way for way in sizes.ways}
    kept = {key: way.counts.call / GIB for key, way in ways.items()}
    assert kept["all", False, False] == pytest.approx(1.74, rel=0.08)
    assert kept["all", True, False] == pytest.approx(0.87, rel=0.08)
    assert kept["all", True, True] == pytest.approx(0.14, rel=0.08)
    for way in ways.values():
        assert way.counts.calls == 4
        assert way.counts.decode / GIB == pytest.approx(0.8 if way.blocks else 5.69, rel=0.05)
        assert way.counts.most / GIB == pytest.approx(3.4 if way.blocks else 5.69, rel=0.05)
    lora, whole = ways["lora", True, True], ways["all", False, True]
    assert 6 < lora.memory(1) / GIB < 7
    assert whole.memory(1) / GIB > 24
    cells = {line[:3]: line[-2:] for line in sizes.lines()}
    assert cells["lora", "bfloat16", "blocks"] == ("4", "16")
    assert cells["all", "float32", "blocks"] == ("no", "11")
    assert f"{sizes}".endswith("trained is lora, unless it is set")


@pytest.mark.slow
def test_the_verb_counts_without_weights(tmp_path):
    tiny_pipeline("Stable Diffusion").save_pretrained(tmp_path / "base")
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    done = mmd_ddm(tmp_path, "plan", "base", "--steps", 4, "--features", "pixels")
    assert done.code == 0, done
    rows = [line.split()[:3] for line in done.out.splitlines() if " GiB " in line]
    assert [row[0] for row in rows] == ["lora"] * 4 + ["all"] * 4
    assert "weights: network 253," in done.out
    assert done.out.rstrip().endswith("trained is all, unless it is set")


def test_a_network_of_latents_is_no_space_of_images(tmp_path):
    tiny_pipeline("LDM").save_pretrained(tmp_path / "base")
    done = mmd_ddm(tmp_path, "plan", "base", "--steps", 4)
    assert done.code == 2
    assert "the network of base sees latents, not images: name another space" in done.err


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("name", ["DiT", "Stable Diffusion", "Flux"])
def test_what_is_counted_without_values_is_what_is_kept_with_them(
    name, blocks, tmp_path, small_flux
):
    tiny_pipeline(name).save_pretrained(tmp_path / "base")
    denoiser = load_model(str(tmp_path / "base"), "cpu").denoiser
    if blocks:
        assert denoiser.recompute_blocks()
    sampler = build_sampler(ChainConfig(steps=4), denoiser)
    found = count(sampler, [Pixels(3)])
    with Valueless():
        counted = count(without_values(sampler), [without_values(Pixels(3))])
    assert counted.calls == counted.trained_calls == found.calls == 4
    for what in ("image", "call", "decode", "extract", "most"):
        assert getattr(counted, what) == pytest.approx(getattr(found, what), rel=0.05), what


def test_blocks_that_are_computed_again_have_the_same_gradient(tmp_path):
    tiny_pipeline("Stable Diffusion").save_pretrained(tmp_path / "base")
    denoiser = load_model(str(tmp_path / "base"), "cpu").denoiser
    sampler = build_sampler(ChainConfig(steps=2), denoiser, recompute=True)
    x_T = torch.randn((2, *denoiser.latent_shape), generator=torch.Generator().manual_seed(0))

    def gradient():
        denoiser.zero_grad()
        images = denoiser.to_images(sampler(x_T, None, denoiser.conditions(range(2))))
        images.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in denoiser.network.parameters()])

    plain, called = gradient(), []
    denoiser.network.down_blocks[0].resnets[0].register_forward_pre_hook(
        lambda *_: called.append(1)
    )
    assert torch.equal(gradient(), plain)
    assert denoiser.recompute_blocks()
    before = len(called)
    assert torch.allclose(gradient(), plain, rtol=1e-4, atol=1e-6 * float(plain.abs().max()))
    assert len(called) - before > before
