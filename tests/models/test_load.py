"""Hundreds of spoilt configs: a model that loads can be called; any other is told in one line."""

import json
import shutil

import pytest
import torch
from commands import save_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd_ddm.jobs.build import load_model

SMALL = st.one_of(st.integers(-3, 24), st.sampled_from([32, 64, -(2**40), 0.5, -1.0, 1e30]))
# Sizes at which diffusers builds for minutes, or fills the memory, before anybody can refuse.
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
GROWING = {"layers_per_block", "block_out_channels"}


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
            values = VALUES if key in GROWING else st.one_of(VALUES, HUGE)
            config[key] = data.draw(values)
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
