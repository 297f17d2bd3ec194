"""Hundreds of spoilt configs: a model that loads can be called; any other is told in one line."""

import json
import shutil
from typing import NamedTuple

import pytest
import torch
from commands import save_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd_ddm.config import NetworkConfig
from mmd_ddm.jobs.build import build_network, load_model
from mmd_ddm.models import parts
from mmd_ddm.models.families import unet2d

SMALL = st.one_of(st.integers(-3, 24), st.sampled_from([32, 64, -(2**40), 0.5, -1.0, 1e30]))
# Sizes at which diffusers would build for minutes, or fill the memory.
HUGE = st.sampled_from([2**31, 10**12, float("nan"), float("inf")])
WORDS = st.sampled_from(
    [
        "AttnDownBlock2D", "AttnUpBlock2D", "DownBlock2D", "UpBlock2D", "ResnetDownsampleBlock2D",
        "ResnetUpsampleBlock2D", "CrossAttnDownBlock2D", "SkipDownBlock2D", "UNetMidBlock2D",
        "fourier", "positional", "learned", "scale_shift", "spatial", "default", "group", "resnet",
        "mish", "gelu", "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "epsilon",
        "sample", "v_prediction", "learned_range", "timestep", "identity", "UNet2DModel",
        "DDPMScheduler", "PNDMScheduler", "FlowMatchEulerDiscreteScheduler", "", "8", "None", "[",
    ]
)  # fmt: skip
PLAIN = st.one_of(SMALL, WORDS, st.none(), st.booleans())
VALUES = st.one_of(
    PLAIN, PLAIN, st.lists(PLAIN, max_size=3), st.lists(SMALL, min_size=2, max_size=2),
    st.dictionaries(WORDS, SMALL, max_size=1),
)  # fmt: skip
NETWORK, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
UNKNOWN = {
    NETWORK: ["num_class_embeds", "attn_norm_num_groups", "add_attention", "of_the_future"],
    SCHEDULER: ["predict_epsilon", "variance_type", "_mmd_ddm", "of_the_future"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "base"
    save_model(folder)
    return folder


@pytest.mark.slow
@settings(
    max_examples=600, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.data())
def test_a_spoilt_config_is_called_or_refused_in_one_line(base, data):
    model = base.with_name("spoilt")
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(base, model)
    for _ in range(data.draw(st.integers(1, 3))):
        file = data.draw(st.sampled_from([NETWORK, SCHEDULER]))
        config = json.loads((model / file).read_text())
        key = data.draw(st.sampled_from(sorted({*config, *UNKNOWN[file]})))
        if key in config and data.draw(st.integers(0, 3)) == 0:
            del config[key]
        else:
            config[key] = data.draw(st.one_of(VALUES, HUGE, st.lists(HUGE, max_size=2)))
        (model / file).write_text(json.dumps(config))
    denoiser, said = None, ""
    try:
        denoiser = load_model(str(model), "cpu").denoiser
    except ValueError as error:
        said = str(error)
    if denoiser is None:
        assert str(model) in said
        assert "\n" not in said
        return
    x_t = torch.zeros(1, *denoiser.shape)
    with torch.no_grad():
        for t in {0, len(denoiser.schedule) // 2, len(denoiser.schedule) - 1}:
            x_0, eps = denoiser.predict(x_t, t)
            assert x_0.shape == eps.shape == x_t.shape


WIDE = {
    "wide": {"block_out_channels": [2**20, 2**20]},
    "wider": {"block_out_channels": [10**12, 10**12]},
    "deep": {"layers_per_block": 10**9},
    "many groups of attention": {"block_out_channels": [2**16, 2**16], "attention_head_dim": 8},
}


@pytest.mark.parametrize("what", WIDE)
def test_a_config_that_would_fill_the_memory_is_refused_before_it_does(
    what, tmp_path, monkeypatch
):
    save_model(tmp_path / "base")
    path = tmp_path / "base" / NETWORK
    path.write_text(json.dumps({**json.loads(path.read_text()), **WIDE[what]}))

    def built(*args, **kwargs):
        raise AssertionError("it was built")

    monkeypatch.setattr(unet2d, "load_network", built)
    with pytest.raises(ValueError, match="base") as caught:
        load_model(str(tmp_path / "base"), "cpu")
    assert "\n" not in str(caught.value)


def test_a_config_that_asks_for_more_than_its_files_hold_is_refused(tmp_path, monkeypatch):
    save_model(tmp_path / "base")
    path = tmp_path / "base" / NETWORK
    wider = {**json.loads(path.read_text()), "block_out_channels": [16, 32]}
    path.write_text(json.dumps(wider))
    with pytest.raises(ValueError, match=r"cannot load .*base: .*size"):
        load_model(str(tmp_path / "base"), "cpu")
    monkeypatch.setattr(parts, "_HARMLESS", 1000)
    said = r"config of .*base asks for [\d,]+ weights, \d+ KiB, but its files hold [\d,]+ at most"
    with pytest.raises(ValueError, match=said):
        load_model(str(tmp_path / "base"), "cpu")


class Memory(NamedTuple):
    available: int


def test_a_network_that_memory_has_no_room_for_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"network.channels = \[1048576\] asks for .* weights, "):
        build_network(NetworkConfig((2**20,), (False,)), (1, 8, 8))
    save_model(tmp_path / "base")
    monkeypatch.setattr(parts.psutil, "virtual_memory", lambda: Memory(1000))
    with pytest.raises(ValueError, match=r"asks for .*, but 1e.03 bytes of memory are free"):
        load_model(str(tmp_path / "base"), "cpu")


def test_asking_how_large_a_network_is_draws_nothing():
    torch.manual_seed(0)
    first = build_network(NetworkConfig((64,), (False,)), (1, 8, 8)).state_dict()
    torch.manual_seed(0)
    parts.check_room(lambda: build_network(NetworkConfig((64,), (False,)), (1, 8, 8)), "it")
    again = build_network(NetworkConfig((64,), (False,)), (1, 8, 8)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
