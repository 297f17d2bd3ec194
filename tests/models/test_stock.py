"""Pipelines that are read by one recorded call: two iterations, K calls, the same pixels."""

from dataclasses import asdict

import numpy as np
import pytest
import tiny_pipelines
import torch
from commands import mmd_ddm
from PIL import Image
from pipelines import load_pipeline
from tiny_pipelines import TINY, TOLD, K, asked, finetune, their_images, tiny_pipeline

import mmd_ddm as mmd
from mmd_ddm.config import ChainConfig, ConditionConfig
from mmd_ddm.jobs.build import build_sampler, load_model, resolve_chain
from mmd_ddm.models.export import export
from mmd_ddm.runs.folder import read_events
from mmd_ddm.samplers.draw import draw

QUICK = ("DiT", "Stable Diffusion")  # the others in the slow tests
EACH = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TINY]
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and diffusers, of themselves


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch, small_flux):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", EACH)
def test_what_is_finetuned_is_drawn_alike_by_diffusers(name, tmp_path):
    finetune(name, tmp_path)
    model = load_model("run")
    pipeline = load_pipeline(tmp_path / "run/model", trust_remote_code=True)
    assert type(pipeline) is type(tiny_pipeline(name))
    theirs, calls = their_images(pipeline, 3, K, **asked(name, 3))
    assert calls == K
    ours = build_sampler(model.chain, model.denoiser).draw(3, seed=0).numpy()
    assert np.abs((theirs * 255).round() - ours).max() <= 1
    base = load_model("base").denoiser.network.state_dict()
    assert any(not torch.equal(w, base[k]) for k, w in model.denoiser.network.state_dict().items())


@pytest.mark.parametrize("name", EACH[1:])  # LDM takes none
def test_prompts_and_guidance_are_those_of_the_pipeline(name, tmp_path):
    tiny_pipeline(name).save_pretrained("base")
    model = load_model("base").denoiser
    prompts = ["a red cat", "two blue dogs, asleep", ""]
    condition = model.conditions(range(3)) if model.classes else model.encode(prompts)
    chain = resolve_chain(ChainConfig(steps=K, guidance=1.0 if name in TOLD else 3.0), model)
    export(model, model.scheduler_config, asdict(chain), tmp_path / "model")
    pipeline = load_pipeline(tmp_path / "model", trust_remote_code=True)
    theirs, calls = their_images(pipeline, 3, K, **asked(name, 3, prompts, guidance=3.0))
    assert calls == K
    sampler = build_sampler(chain, model)
    ours, _ = draw(sampler, 3, reference=condition, seed=0)
    assert np.abs((theirs * 255).round() - ours.numpy()).max() <= 1
    assert np.abs(theirs[0] - theirs[1]).max() > 0.05


def test_prompts_are_drawn_by_turns_and_are_those_of_the_pipeline(tmp_path):
    tiny_pipeline("Stable Diffusion").save_pretrained("base")
    words = ("sample", "base", "--steps", K, "-n", 4, "--out", "drawn")
    done = mmd_ddm(tmp_path, *words, "--prompt", "a red cat", "--prompt", "two blue dogs")
    assert done.code == 0, done
    files = sorted((tmp_path / "drawn").glob("0*.png"))
    drawn = np.stack([np.asarray(Image.open(file)) for file in files]).transpose(0, 3, 1, 2)
    model = load_model("base").denoiser
    chain = resolve_chain(ChainConfig(steps=K), model)
    export(model, model.scheduler_config, asdict(chain), tmp_path / "model")
    pipeline = load_pipeline(tmp_path / "model")
    asked_for = asked("Stable Diffusion", 4, ["a red cat", "two blue dogs"] * 2)
    theirs, _ = their_images(pipeline, 4, K, **asked_for)
    assert np.abs((theirs * 255).round() - drawn).max() <= 1
    done = mmd_ddm(tmp_path, "sample", "fashion-mnist", "--prompt", "a cat", "--out", "none")
    assert (done.code, "fashion-mnist takes no prompts" in done.err) == (2, True)


@pytest.mark.slow
def test_a_run_shows_its_prompts(tmp_path):
    tiny_pipelines.clip_text(projection=True).save_pretrained("texts")
    tiny_pipelines.clip_tokenizer().save_pretrained("texts")
    finetune("Stable Diffusion", tmp_path)  # which writes data and base
    mmd.finetune(
        "base", "data", {"steps": K}, out="judged", features=["pixels"], judges=["frequencies"],
        iterations=1, batch_size=8, select={"every": 0}, compare_steps=[], judge_samples=8,
        condition={"text": "clip:texts"},
    )  # fmt: skip
    assert "<h3>Prompt by prompt</h3>" in (tmp_path / "judged/report.html").read_text()
    assert not (tmp_path / "judged/classes.png").exists()
    width, height = Image.open(tmp_path / "judged/prompts.png").size
    assert height > 2 * 2 * 2 * 32  # two bands of two rows, enlarged
    assert width > 2 * 32


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["Stable Diffusion", "Stable Diffusion XL", "Stable Diffusion 3", "Sana"]
)
def test_low_rank_additions_load_onto_the_base_in_diffusers(name, tmp_path):
    finetune(name, tmp_path, trained="lora", lora_rank=2, iterations=3, lr=0.1)
    merged = load_pipeline(tmp_path / "run/model")
    base = load_pipeline("base", scheduler=merged.scheduler)
    plain, _ = their_images(base, 2, K, **asked(name, 2))
    base.load_lora_weights("run")
    added, _ = their_images(base, 2, K, **asked(name, 2))
    whole, _ = their_images(merged, 2, K, **asked(name, 2))
    assert 100 * np.abs(added - whole).max() < np.abs(added - plain).max()


@pytest.mark.parametrize("method", ["progressive", "consistency", "pairs"])
def test_methods_that_learn_from_pixels_are_refused(method, tmp_path):
    with pytest.raises(ValueError, match=f"method {method} learns from pixels, and base denoises"):
        finetune("LDM", tmp_path, method=method)


def test_captions_are_matched_with_the_images_and_judged_under(tmp_path):
    """Two captions of a text model by the joint MMD, under a frozen text encoder of its own."""
    tiny_pipelines.clip_text(projection=True).save_pretrained("texts")
    tiny_pipelines.clip_tokenizer().save_pretrained("texts")
    finetune(
        "Stable Diffusion", tmp_path, condition=ConditionConfig(text="clip:texts"), batch_size=8
    )
    losses = [e["loss"] for e in read_events(tmp_path / "run") if e["event"] == "train"]
    finetune("Stable Diffusion", tmp_path, out="alone", batch_size=8)
    alone = [e["loss"] for e in read_events(tmp_path / "alone") if e["event"] == "train"]
    assert losses[0] != pytest.approx(alone[0], rel=1e-3)
    images = mmd.images("data", captions=True)
    rows = mmd.evaluate(load_model("run"), images, features=["pixels"], n=6).rows
    assert rows
