"""Finetuning a part of the weights: what moves, what stays, what is kept, and resuming."""

import sys
import warnings

import pytest
import torch
from commands import make_denoiser, mmd_ddm, save_place
from diffusers import DiffusionPipeline, UNet2DModel

from mmd_ddm.config import FinetuneConfig, SelectConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.jobs.build import load_model
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.models.lora import adapt, merge
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.memory_plan import measure
from mmd_ddm.training.objective import Objective

with warnings.catch_warnings():  # of what it imports
    warnings.simplefilter("ignore")
    from peft import PeftModel

CONFIG = FinetuneConfig(
    iterations=2, batch_size=4, lr=1e-3, ema_decay=0.5, save_every=1,
    select=SelectConfig(every=0),
)  # fmt: skip
PARTS = ("no-convolutions", "lora")
RANK = 2


def state(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@pytest.fixture(scope="module", params=PARTS)
def run(request, tmp_path_factory):
    """A run of two iterations, the weights before, and those of its model."""
    folder = tmp_path_factory.mktemp("adapters")
    before = state(save_place(folder, 40).network)
    done = mmd_ddm(
        folder, "finetune", "base", "--data", "digits.npy", "--out", "run", "--steps", 4,
        "--features", "pixels", "--set", "judges=encoder:judge.safetensors", "--iterations", 2,
        "--set", "select.every=0", "--batch-size", 4, "--set", "judge_samples=4", "--lr", 1e-3,
        "--set", f"trained={request.param}", "--set", f"lora_rank={RANK}",
    )  # fmt: skip
    assert done.code == 0, done
    return request.param, folder, before, state(load_model(str(folder / "run")).denoiser.network)


def test_only_that_part_has_moved(run):
    part, _, before, after = run
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    kernels = {name for name, p in before.items() if p.ndim == 4}
    if part == "lora":
        assert {name.rpartition(".")[2] for name in moved} == {"weight"}
        assert {"to_q", "conv1", "conv2", "time_emb_proj"} <= {n.split(".")[-2] for n in moved}
        for name in moved:
            difference = (after[name] - before[name]).flatten(1).double()
            assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= RANK
    else:
        assert moved
        assert not moved & kernels
        assert {"norm1", "to_q", "linear_1"} <= {name.split(".")[-2] for name in moved}


def test_the_result_is_an_ordinary_model(run):
    part, folder, _, _ = run
    network = DiffusionPipeline.from_pretrained(folder / "run" / "model").unet
    assert type(network) is UNet2DModel
    assert (folder / "run" / "adapter").exists() == (part == "lora")
    if part == "lora":
        base = load_model(str(folder / "base")).denoiser.network
        added = PeftModel.from_pretrained(base, folder / "run" / "adapter")
        x, t = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0)), 300
        assert torch.allclose(added(x, t).sample, network.eval()(x, t).sample, atol=1e-5)


def make(part):
    denoiser = make_denoiser()
    adapter = adapt(denoiser.network, part, RANK)
    bank = torch.randn((20, 49), generator=torch.Generator().manual_seed(1))
    sampler = make_sampler("ddim", denoiser, (600, 200))
    return sampler, Objective.over(Pixels(1), bank, Polynomial()), adapter


class Killed(Exception):
    pass


@pytest.mark.parametrize("part", PARTS)
def test_a_resumed_run_ends_as_the_uninterrupted_one(part, tmp_path):
    def train(path, die=False):
        def on_event(**event):
            if die and event["step"] == 2:
                raise Killed

        sampler, objective, adapter = make(part)
        finetune(CONFIG, sampler, [objective], tmp_path / path, on_event)
        merge(adapter, None)
        return state(sampler.denoiser.network)

    whole = train("whole")
    with pytest.raises(Killed):
        train("killed", die=True)
    saved = torch.load(tmp_path / "killed", weights_only=True)
    assert saved["step"] == 1
    assert len(saved["network"]) < len(whole)
    resumed = train("killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_lora_begins_with_the_same_function():
    x, t = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0)), 300.0
    denoiser = make_denoiser()
    expected = denoiser(x, t)
    adapt(denoiser.network, "lora", RANK)
    assert torch.equal(denoiser(x, t), expected)
    trained = [name for name, p in denoiser.network.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_less_is_held_for_a_part():
    whole, *parts = (measure(make(part)[0], [Pixels(1)]) for part in ("all", *PARTS))
    assert all(part.trained < 0.6 * whole.trained for part in parts)


def test_other_names_and_a_missing_package_are_refused(monkeypatch):
    network = make_denoiser().network
    with pytest.raises(ValueError, match="trained is all, no-convolutions or lora; got 'head'"):
        adapt(network, "head")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"needs peft: pip install 'mmd-ddm\[lora\]'"):
        adapt(network, "lora")
