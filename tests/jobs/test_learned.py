"""A finetuning of the sampler's own numbers, alone or with the network's weights."""

import re

import pytest
import torch
from commands import JUDGE, mmd_ddm
from diffusers import DiffusionPipeline

import mmd_ddm as mmd
from mmd_ddm.config import FinetuneConfig
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.runs.fingerprint import weights_sha256

SMALL = {
    "iterations": 3, "batch_size": 4, "judge_samples": 6, "compare_steps": [4], "micro_batch": 4,
    "select": {"every": 0}, "features": ["pixels"], "judges": [JUDGE], "ema_decay": 0.0,
}  # fmt: skip
START = (833, 500, 166)


def finetune(out, trained, **settings):
    chain = mmd.Chain(3, "unipc")
    return mmd.finetune(
        "base", "digits.npy", chain, out=out, trained=trained, **{**SMALL, **settings}
    )


@pytest.mark.parametrize("trained", ["times", "coefficients", "sampler", "ggdm", "all+times"])
def test_what_is_trained_moves_and_nothing_else(trained, workplace):
    base = weights_sha256(mmd.load("base").denoiser.network)
    result = finetune("run", trained)
    chain = result.chain
    assert chain.times[0] == START[0]
    moved = max(abs(a - b) for a, b in zip(chain.times, START, strict=True))
    assert (moved > 1) == (trained not in ("coefficients", "ggdm"))
    assert (weights_sha256(result.model.denoiser.network) != base) == (trained == "all+times")
    assert chain.sampler == ("unipc" if "times" in trained else "learned")
    assert result.record["rows"][-1]["times"] == [*chain.times]
    assert result.record["rows"][0]["times"] == [*START]  # of the base, as it was
    checked = mmd_ddm(workplace, "verify", "run")
    assert checked.code == 0, checked.out


@pytest.mark.parametrize("trained", ["times", "sampler"])
def test_diffusers_draws_what_was_learned(trained, workplace):
    result = finetune("run", trained)
    pipeline = DiffusionPipeline.from_pretrained("run/model", trust_remote_code=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    images = pipeline(2, num_inference_steps=3, generator=generators, output_type="np").images
    sampler = result.samplers["finetuned"]
    with torch.no_grad():
        expected = sampler(sample_noise(range(2), sampler.denoiser.shape)[0])
    expected = (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert expected.std() > 0.01
    assert abs(images - expected.numpy()).max() <= 1e-5


def test_a_resumed_run_is_the_uninterrupted_one(workplace):
    settings = {"cosine": False, "save_every": 1, "ema_decay": 0.5, "keep_checkpoint": True}
    whole = finetune("whole", "all+sampler", **settings)
    finetune("parts", "all+sampler", **settings, iterations=2)
    parts = finetune("parts", "all+sampler", **settings)
    assert parts.chain == whole.chain
    table, other = (r.samplers["finetuned"].table.weights for r in (parts, whole))
    assert torch.equal(table, other)
    assert parts.hashes == whole.hashes


def test_the_numbers_have_a_rate_of_their_own(workplace):
    """Adam's first step is the rate: of the softmax's arguments, and of the coefficients."""
    one = {"iterations": 1, "grad_clip": 0.0}
    still = finetune("still", "sampler", **one, sampler_lr=0.0).samplers["finetuned"].table
    moved = finetune("moved", "sampler", **one, sampler_lr=1e-6).samplers["finetuned"].table
    assert still.times == pytest.approx(START, abs=1e-4)
    change = (moved.weights - still.weights).abs().max()
    assert 0.9e-6 < change < 3e-6


@pytest.mark.parametrize("trained", ["times", "all", "lora+sampler", "no-convolutions+times"])
def test_what_may_be_trained(trained):
    config = FinetuneConfig(trained=trained)
    parts = [config.trained_weights, config.trained_numbers]
    assert "+".join(filter(None, parts)) == trained


@pytest.mark.parametrize("trained", ["head", "all+", "+times", "times+all", "all+lora"])
def test_what_may_not(trained):
    words = f"trained is all, no-conv.*got {re.escape(repr(trained))}"
    with pytest.raises(ValueError, match=words):
        FinetuneConfig(trained=trained)


def test_a_chain_without_numbers_is_refused_at_once(workplace):
    done = mmd_ddm(
        workplace, "finetune", "base", "--data", "digits.npy", "--steps", "3", "--out", "run",
        "--set", "chain.sampler=heun", "--set", "trained=times",
    )  # fmt: skip
    assert done.code == 2
    assert "Heun at times" in done.err
    assert not (workplace / "run").exists()
