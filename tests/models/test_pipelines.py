"""Folders of pipelines as people keep them: in half precision, in several files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from pipelines import load_pipeline
from tiny_pipelines import K, asked, finetune, their_images, tiny_pipeline

import mmd_ddm as mmd
from mmd_ddm.config import FinetuneConfig, ObjectiveConfig, SelectConfig
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.jobs.train import prepare, train_and_export
from mmd_ddm.models import lora
from mmd_ddm.runs.folder import read_events

SD = "Stable Diffusion"
FOLDERS = {
    "fp16 variant": {"variant": "fp16"},
    "fp16 variant in shards": {"variant": "fp16", "max_shard_size": "100KB"},
    "shards": {"max_shard_size": "100KB"},
}
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and diffusers, of themselves


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(kind):
    half = torch.float16 if "fp16" in kind else torch.float32
    tiny_pipeline(SD).to(half).save_pretrained("base", **FOLDERS[kind])
    assert (len(list(Path("base/unet").glob("*.safetensors"))) > 1) == ("shards" in kind)


@pytest.mark.parametrize(
    "kind", [k if "in" in k else pytest.param(k, marks=pytest.mark.slow) for k in FOLDERS]
)
def test_folders_load_and_what_is_made_of_them_loads_unasked(kind, tmp_path):
    save(kind)
    held = torch.bfloat16 if "fp16" in kind else torch.float32
    assert load_model("base").denoiser.network.dtype == held
    finetune(None, tmp_path, trained="lora", lora_rank=2, lr=0.1)
    pipeline = load_pipeline("run/model", torch_dtype=torch.float32)  # as its base would need it
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float32}
    theirs, calls = their_images(pipeline, 3, K, **asked(SD, 3))
    assert calls == K
    model = load_model("run")
    ours = build_sampler(model.chain, model.denoiser).draw(3, seed=0).numpy()
    # Text encoder and decoder stay in half precision, which moves colours by a grey level.
    assert np.abs((theirs * 255).round() - ours).max() <= (3 if "fp16" in kind else 1)
    base = load_model("base").denoiser
    base.hold("all")
    after = model.denoiser.network.state_dict()
    moved = [k for k, w in base.network.state_dict().items() if not torch.equal(w, after[k])]
    assert moved  # though in half precision the same additions might have been lost
    assert all(one.rpartition(".")[0].endswith(tuple(lora._TARGETS)) for one in moved)


def test_gradients_reach_additions_in_float32_through_frozen_halves(tmp_path):
    save("fp16 variant")
    denoiser = load_model("base").denoiser
    denoiser.hold("lora")
    lora.adapt(denoiser.network, "lora", 2)
    sampler = build_sampler(mmd.Chain(steps=2), denoiser, recompute=True)
    x_T = torch.randn((2, *denoiser.latent_shape), generator=torch.Generator().manual_seed(0))
    images = denoiser.to_images(sampler(x_T, None, denoiser.conditions(range(2))))
    assert images.dtype == torch.float32
    images.square().mean().backward()
    for p in denoiser.network.parameters():
        assert p.dtype == (torch.float32 if p.requires_grad else torch.bfloat16)
        assert (p.grad is not None) == p.requires_grad
    trained = [p for p in denoiser.network.parameters() if p.requires_grad]
    assert any(float(p.grad.abs().max()) > 0 for p in trained)


@pytest.mark.slow
def test_large_networks_are_trained_by_additions_unless_asked_otherwise(tmp_path, monkeypatch):
    save("shards")
    monkeypatch.setattr(lora, "_LARGE", 1e5)
    finetune(None, tmp_path)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["settings"]["trained"] == "lora"
    assert (tmp_path / "run/pytorch_lora_weights.safetensors").is_file()
    events = len(read_events(tmp_path / "run"))
    finetune(None, tmp_path)  # which says nothing either, and is the same run
    assert len(read_events(tmp_path / "run")) <= events + 2
    finetune(None, tmp_path, out="whole", trained="all")
    assert not (tmp_path / "whole/pytorch_lora_weights.safetensors").exists()


def test_a_frozen_network_is_held_in_the_precision_that_it_computes_in(tmp_path):
    save("shards")
    denoiser = load_model("base", precision="bfloat16").denoiser
    assert denoiser.network.dtype == torch.float32
    denoiser.hold("lora")
    assert denoiser.network.dtype == torch.bfloat16
    denoiser.hold("all")
    assert denoiser.network.dtype == torch.float32


@pytest.mark.slow
def test_a_judged_run_of_a_base_in_halves_holds_when_it_is_verified(tmp_path):
    save("fp16 variant")
    finetune(None, tmp_path, iterations=0)  # which writes data
    mmd.finetune(
        "base", "data", {"steps": 2}, out="judged", features=["pixels"], judges=["frequencies"],
        iterations=1, batch_size=4, select={"every": 0}, compare_steps=[], judge_samples=4,
        condition={"match": "ignore"}, trained="lora",
    )  # fmt: skip
    assert {check.verdict for check in mmd.verify("judged")} == {"holds"}


def overflowing():
    """A pipeline whose decoder is right in float32, and not in float16."""
    pipeline = tiny_pipeline("LDM")
    with torch.no_grad():
        for layer in (pipeline.vqvae.post_quant_conv, pipeline.vqvae.decoder.conv_in):
            layer.weight.mul_(1e4)
    pipeline.vqvae.half()
    return pipeline


def test_a_decoder_that_overflows_is_named_with_the_way_out(tmp_path):
    said = "the VQModel of this pipeline decodes finite .* in float16: take its weights in fl"
    model = mmd.load(overflowing())
    sampler = build_sampler(mmd.Chain(steps=2), model.denoiser)
    with pytest.raises(ValueError, match=said):
        sampler.draw(2)
    np.save("data.npy", np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8))
    config = FinetuneConfig(
        "pipeline", "data.npy", chain=mmd.Chain(steps=2), iterations=1, batch_size=2,
        objective=ObjectiveConfig(features=("pixels",)), select=SelectConfig(every=0),
    )  # fmt: skip
    with prepare(config, tmp_path / "run", model=model) as job:
        with pytest.raises(ValueError, match=said):
            train_and_export(job)
    model.denoiser.codec.float()
    assert sampler.draw(2).float().std() > 0


def small_decoder(latent=4):
    sizes = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderTiny(
            latent_channels=latent, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **sizes
        ).eval()  # fmt: skip


@pytest.mark.slow
def test_a_small_decoder_makes_the_loss_and_nothing_else(tmp_path):
    small = small_decoder()
    small.save_pretrained("small")
    finetune(SD, tmp_path, decoder="small", batch_size=4)
    finetune(None, tmp_path, out="full", batch_size=4)
    losses = [
        [e["loss"] for e in read_events(tmp_path / run) if e["event"] == "train"]
        for run in ("run", "full")
    ]
    assert losses[0][0] != pytest.approx(losses[1][0], rel=1e-3)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert len(record["inputs"]["decoder_sha256"]) == 64
    assert not (tmp_path / "run/model/small").exists()
    denoiser = load_model("base").denoiser
    sampler, x_0 = build_sampler(mmd.Chain(steps=2), denoiser), torch.randn((2, 4, 16, 16))
    before = sampler.draw(2)
    denoiser.use_decoder("small")
    assert torch.equal(sampler.draw(2), before)
    with torch.no_grad():
        assert torch.equal(denoiser.to_loss(x_0), small.decode(x_0).sample)


def test_a_small_decoder_that_does_not_fit_is_refused(tmp_path):
    tiny_pipeline(SD).save_pretrained("base")
    tiny_pipeline("LDM").save_pretrained("ldm")
    small_decoder(8).save_pretrained("eight")
    for model, decoder, said in (
        ("fashion-mnist", "tiny", "draws pixels: leave out --decoder"),
        ("base", "base/vae", "no AutoencoderTiny at base/vae .*: it is of class AutoencoderKL"),
        ("base", "nowhere", "no AutoencoderTiny at nowhere"),
        ("base", "eight", "eight is for latents of 8 channels"),
        ("ldm", "tiny", "no small decoder is known for LDMPipeline"),
    ):
        with pytest.raises(ValueError, match=said):
            load_model(model).denoiser.use_decoder(decoder)
