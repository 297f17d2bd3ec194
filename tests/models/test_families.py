"""Each family from a stock pipeline and back: two iterations, K calls, the same pixels."""

import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
from commands import JUDGE, save_data
from diffusers import (
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from pipelines import call, load_pipeline

from mmd_ddm.config import ChainConfig, FinetuneConfig, ObjectiveConfig, SelectConfig
from mmd_ddm.jobs.build import build_sampler, load_model, resolve_chain
from mmd_ddm.jobs.train import train
from mmd_ddm.models.export import export, make_pipeline
from mmd_ddm.models.families.edm import EDMUNet2D
from mmd_ddm.models.families.flow import FlowUNet2D
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.load import load_denoiser

K = 4
VARIANCE = {"variance_type": "learned_range", "clip_sample": False}
FAMILIES = {
    "betas": (DDPMPipeline, DDPMScheduler(clip_sample=False), {}, UNet2D),
    "learned variance": (DDPMPipeline, DDPMScheduler(**VARIANCE), {"out_channels": 2}, UNet2D),
    "flow": (DDPMPipeline, FlowMatchEulerDiscreteScheduler(shift=3.0), {}, FlowUNet2D),
    "edm": (ConsistencyModelPipeline, EDMEulerScheduler(), {}, EDMUNet2D),
    "edm, v": (
        ConsistencyModelPipeline, EDMEulerScheduler(prediction_type="v_prediction"), {}, EDMUNet2D
    ),
    "consistency": (ConsistencyModelPipeline, CMStochasticIterativeScheduler(), {}, EDMUNet2D),
}  # fmt: skip
# Chains that a scheduler of diffusers holds, and others that bring ours along.
CHAINS = [
    *((name, ChainConfig(steps=K)) for name in FAMILIES),
    ("consistency", ChainConfig(steps=1)),
    ("flow", ChainConfig(steps=1)),
    ("edm", ChainConfig(steps=1)),
    ("edm", ChainConfig(steps=2, spacing="karras")),
    ("flow", ChainConfig(times=(1000.0, 640.0, 512.5, 100.0))),
    ("edm", ChainConfig(times=(80.0, 10.0, 2.0, 0.4))),
    ("flow", ChainConfig(steps=K, sampler="unipc")),
    ("edm", ChainConfig(steps=K, sampler="dpm-solver++-2m")),
    ("flow", ChainConfig(steps=K, spacing="log-snr", clip=True)),
]
STOCK = {
    "betas": "DDIMScheduler", "learned variance": "DDIMScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler", "edm": "EDMEulerScheduler",
    "edm, v": "EDMEulerScheduler", "consistency": "CMStochasticIterativeScheduler",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_data(tmp_path, 40, ("judge", "selection"))


def save_base(name, tiny_unet, folder="base"):
    made, scheduler, config, family = FAMILIES[name]
    made(tiny_unet(**config), scheduler).save_pretrained(folder)
    return family


def is_stock(name, chain):
    free = name == "consistency" and chain.steps > 1
    return not (free or chain.times or chain.clip or chain.sampler != "ddim")


@pytest.mark.parametrize(("name", "chain"), CHAINS, ids=str)
def test_what_is_finetuned_is_drawn_alike_by_diffusers(name, chain, tiny_unet, tmp_path):
    family = save_base(name, tiny_unet)
    config = FinetuneConfig(
        "base", "digits.npy", chain=chain, iterations=2, batch_size=4, lr=1e-3,
        objective=ObjectiveConfig(features=("pixels",)), judges=(JUDGE,), compare_steps=(),
        select=SelectConfig(every=0, features="encoder:selection.safetensors"),
    )  # fmt: skip
    train(config, tmp_path / "run")
    model = load_model("run")
    assert type(model.denoiser) is family
    steps = len(model.chain.times)
    stock = is_stock(name, chain)
    pipeline = load_pipeline(
        tmp_path / "run/model", **({} if stock else {"trust_remote_code": True})
    )
    assert type(pipeline).__name__ == (
        "DDIMPipeline" if family is UNet2D else FAMILIES[name][0].__name__
    )
    assert type(pipeline.scheduler).__name__ == (STOCK[name] if stock else "FewStepScheduler")
    calls = []
    pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    theirs = torch.from_numpy(call(pipeline, 3, steps, output_type="np")[0])
    assert len(calls) == steps
    ours = torch.from_numpy(np.asarray(build_sampler(model.chain, model.denoiser).draw(3, seed=0)))
    theirs = (theirs * 255).round().permute(0, 3, 1, 2)
    assert (theirs - ours.double()).abs().max() <= 1
    assert ours.double().std() > 10
    few = resolve_chain(ChainConfig(steps=2, spacing="trailing"), model.denoiser)
    again = make_pipeline(model.denoiser, model.scheduler_config, asdict(few)).scheduler
    again.set_timesteps(2)
    told = [model.denoiser.schedule.network_time(t) for t in few.times]
    assert again.timesteps.tolist() == pytest.approx(told, rel=1e-4, abs=1e-5)
    base = load_denoiser("base").network.state_dict()
    assert any(not torch.equal(w, base[k]) for k, w in model.denoiser.network.state_dict().items())


@pytest.mark.parametrize("name", ["flow", "edm", "edm, v", "consistency"])
def test_a_base_is_written_and_read_as_it_is(name, tiny_unet):
    save_base(name, tiny_unet)
    model = load_model("base")
    pipeline = make_pipeline(model.denoiser, model.scheduler_config, None)
    made, scheduler, *_ = FAMILIES[name]
    assert type(pipeline) is made
    kept = {k: v for k, v in scheduler.config.items() if not k.startswith("_")}
    assert {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")} == kept
    assert load_denoiser(pipeline).fingerprint == model.denoiser.fingerprint
    assert model.denoiser.notes == []


def test_one_pipeline_draws_at_several_numbers_of_steps(tiny_unet):
    save_base("edm", tiny_unet)
    model = load_model("base")
    chains = [resolve_chain(ChainConfig(steps=k), model.denoiser) for k in (2, 4)]
    budgets = [(asdict(chain), None) for chain in chains]
    pipeline = make_pipeline(
        model.denoiser, model.scheduler_config, asdict(chains[1]), None, budgets
    )
    pipeline.set_progress_bar_config(disable=True)
    for chain in chains:
        _, theirs = call(pipeline, 2, chain.steps, output_type="np")
        z = torch.stack([
            torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)
        ])  # fmt: skip
        with torch.no_grad():
            ours = build_sampler(chain, model.denoiser)(z)
        assert (theirs - ours).abs().max() <= 1e-5 * ours.abs().max()


class Rewriting(DDPMPipeline):
    """As stock pipelines of latents do: an offset other than 1 becomes 1 when it is built."""

    def __init__(self, unet, scheduler):
        super().__init__(unet, DDIMScheduler.from_config(scheduler.config, steps_offset=1))


def test_a_pipeline_that_rewrites_the_times_is_found_and_refused(denoiser):
    denoiser.pipeline = lambda scheduler: Rewriting(denoiser.network, scheduler)
    chain = resolve_chain(ChainConfig(steps=4), denoiser)
    with pytest.raises(ValueError, match=r"Rewriting rewrites its scheduler.*875, 625, 375, 125"):
        make_pipeline(denoiser, {}, asdict(chain))
    kept = ChainConfig(times=(751, 501, 251, 1), steps=4, clip=False)  # as it would have them
    assert make_pipeline(denoiser, {}, asdict(kept)).scheduler.config.steps_offset == 1


def test_what_no_family_reads_is_refused_by_its_class(tiny_unet, tmp_path):
    DDIMPipeline(tiny_unet(), DDIMScheduler()).save_pretrained("model")
    index = tmp_path / "model/model_index.json"
    text = index.read_text()
    for said, message in (
        ("KandinskyPipeline", "is a KandinskyPipeline, which is not supported; supported are "
         "DDPMPipeline, DDIMPipeline, ConsistencyModelPipeline"),
    ):  # fmt: skip
        index.write_text(text.replace("DDIMPipeline", said))
        with pytest.raises(ValueError, match=message) as caught:
            load_model("model")
        assert "\n" not in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = DDPMPipeline(tiny_unet(), EDMEulerScheduler())
    with pytest.raises(ValueError, match="whose scheduler is for ConsistencyModelPipeline"):
        load_denoiser(made)


@pytest.mark.parametrize("name", ["betas", "flow", "edm"])
def test_classes_are_drawn_alike_by_diffusers_in_every_family(name, tiny_unet, tmp_path):
    made, scheduler, _, family = FAMILIES[name]
    network = tiny_unet(num_class_embeds=3)
    torch.nn.init.normal_(network.class_embedding.weight, std=3.0)
    base = load_denoiser(made(network, scheduler))
    assert (type(base), base.classes) == (family, ("0", "1", "2"))
    chain = resolve_chain(ChainConfig(steps=K), base)
    export(base, base.scheduler_config, asdict(chain), tmp_path / "model")
    again = load_denoiser(str(tmp_path / "model"))
    assert (type(again), again.classes) == (family, base.classes)
    pipeline = load_pipeline(tmp_path / "model", trust_remote_code=True)
    assert type(pipeline) is ConsistencyModelPipeline
    calls = []
    pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    theirs, last = call(pipeline, 3, K, output_type="np", class_labels=[0, 1, 2])
    assert len(calls) == K
    ours = build_sampler(chain, again).draw(3, seed=0).permute(0, 2, 3, 1).numpy()
    assert np.abs((theirs * 255).round() - ours).max() <= 1
    _, other = call(pipeline, 3, K, output_type="np", class_labels=[1, 2, 0])
    assert (other - last).abs().max() > 1e-3  # before what saturates is clamped
