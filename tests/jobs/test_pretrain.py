"""Bases of every objective, in plain diffusers' hands."""

from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from commands import digits, save_model
from pipelines import call, load_pipeline

from mmd_ddm.config import ChainConfig, NetworkConfig, PretrainConfig
from mmd_ddm.jobs.build import build_sampler, load_model, resolve_chain
from mmd_ddm.jobs.pretrain import pretrain

SMALL = NetworkConfig((8, 16), (False, True), attention_head_dim=8, norm_num_groups=4)
CONFIG = PretrainConfig("digits.npy", network=SMALL, iterations=2, batch_size=4, ema_decay=0)
SAVED = {
    "eps": ("DDIMPipeline", "DDIMScheduler", "epsilon"),
    "v": ("DDIMPipeline", "DDIMScheduler", "v_prediction"),
    "x_0": ("DDIMPipeline", "DDIMScheduler", "sample"),
    "flow": ("DDPMPipeline", "FlowMatchEulerDiscreteScheduler", "flow_prediction"),
    "edm": ("ConsistencyModelPipeline", "EDMEulerScheduler", "edm"),
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("digits.npy", digits(40))


@pytest.mark.parametrize("objective", SAVED)
def test_a_base_is_the_stock_pipeline_of_its_family(objective):
    assert pretrain(replace(CONFIG, objective=objective), Path("run")).record["finished"]
    pipeline = load_pipeline("run/model")
    kind, scheduler, prediction = SAVED[objective]
    assert (type(pipeline).__name__, type(pipeline.scheduler).__name__) == (kind, scheduler)
    assert type(pipeline) is getattr(diffusers, kind)
    denoiser = load_model("run").denoiser
    assert denoiser.prediction == prediction
    pipeline.scheduler.set_timesteps(20)
    told, edm = [float(t) for t in pipeline.scheduler.timesteps], objective == "edm"
    times = tuple(np.exp(4 * np.array(told)).clip(0.002, 80).tolist() if edm else told)
    chain = resolve_chain(ChainConfig(times=times), denoiser)
    noise = torch.cat(
        [torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    )
    with torch.no_grad():
        x_0 = build_sampler(chain, denoiser)(noise)
    torch.testing.assert_close(call(pipeline, 2, 20)[1], x_0, rtol=1e-4, atol=1e-4)


def test_a_base_can_begin_with_another_ones_weights():
    """But for those of its classes, which that one does not have."""
    base = save_model(Path("base")).network.state_dict()
    np.savez("digits.npz", images=digits(40), labels=np.arange(40) % 3)
    pretrain(replace(CONFIG, data="digits.npz", labels=True, model="base", lr=0.0), Path("run"))
    own = load_model("run").denoiser.network.state_dict()
    assert own.pop("class_embedding.weight").std() > 0.5
    assert own.keys() == base.keys()
    for name, weight in base.items():
        torch.testing.assert_close(own[name], weight, rtol=1e-3, atol=1e-4)  # float16
