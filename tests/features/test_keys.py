"""What is remembered is remembered of all that decides it: any change makes another key."""

import json
import shutil
import sys

import pytest
import torch
from commands import mmd_ddm, save_model, save_place
from torch import nn

from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import load_model
from mmd_ddm.runs import fingerprint
from mmd_ddm.runs.fingerprint import code_sha256
from mmd_ddm.samplers.ddim import DDIM

MODULE = """
import json
from pathlib import Path
import torch
from own_scale import SCALE

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        about = json.loads(Path(__file__).with_name("own.json").read_text())
        self.mean, self.inner = about["mean"], torch.nn.AvgPool2d(about["size"])
        self.register_buffer("std", torch.tensor(about["std"]), persistent=False)
    def forward(self, x):
        return SCALE * ((self.inner(x) - self.mean[0]) / self.std).flatten(1)

def made():
    return torch.nn.Sequential(Net(), torch.nn.Flatten())
"""
OWN = {"mean": [0.5], "std": [0.5], "size": 2}


def pixels(n=6, channels=1, size=8):
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (n, channels, size, size), generator=draw)
    return ImageSet(values.to(torch.uint8), "made up")


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def told_apart(name, change, channels=1, size=8):
    """The space before and after a change of its files: other keys, and vectors of its own."""
    seen = pixels(channels=channels, size=size)
    before = make_features(name, channels)
    assert make_features(name, channels).sha256 == before.sha256
    first = cached_features(seen, before).clone()
    change()
    after = make_features(name, channels)
    assert after.sha256 != before.sha256
    assert torch.equal(cached_features(seen, after), extract(seen.pixels, after))
    return first, cached_features(seen, after)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))


MODELS = {
    "betas": ("scheduler/scheduler_config.json", {"beta_end": 0.05}),
    "a schedule": ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}),
    "the number of times": ("scheduler/scheduler_config.json", {"num_train_timesteps": 500}),
    "the prediction": ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
    "an activation": ("unet/config.json", {"act_fn": "mish"}),
    "an epsilon": ("unet/config.json", {"norm_eps": 0.1}),
    "the centring of inputs": ("unet/config.json", {"center_input_sample": True}),
    "the frequencies of times": ("unet/config.json", {"flip_sin_to_cos": False}),
}


@pytest.mark.parametrize("what", MODELS)
def test_equal_weights_with_another_config_are_another_denoiser_space(what, tmp_path):
    file, changes = MODELS[what]
    save_model(tmp_path / "base")
    told_apart(f"denoiser:{tmp_path / 'base'}", lambda: edit(tmp_path / "base" / file, **changes))


def test_one_model_in_two_places_is_one_space(tmp_path):
    save_model(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "copy")
    one, two = (make_features(f"denoiser:{tmp_path / name}", 1) for name in ("base", "copy"))
    assert one.sha256 == two.sha256


@pytest.mark.parametrize("setting", ["t", "dim_of_grid"])
def test_settings_of_a_space_are_in_its_key(setting, tmp_path):
    save_model(tmp_path / "base")
    one, two = (make_features(f"denoiser:{tmp_path / 'base'}", 1) for _ in range(2))
    setattr(two, setting, 20.0)
    del two._made_with  # which are those of the space as it was made
    assert one.sha256 != two.sha256


OF_TRANSFORMERS = {
    "clip": {"hidden_act": "gelu", "layer_norm_eps": 0.1},
    "siglip": {"hidden_act": "relu", "num_attention_heads": 1},
    "dinov2": {"layer_norm_eps": 0.1, "num_attention_heads": 1},
}
CHANGES = [(kind, key) for kind, changes in OF_TRANSFORMERS.items() for key in changes]


@pytest.mark.parametrize(("kind", "key"), CHANGES)
def test_the_config_of_an_encoder_is_in_its_key(kind, key, tmp_path):
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    wide = {**small, "intermediate_size": 32, "image_size": 32, "patch_size": 16}
    with torch.random.fork_rng(devices=[]):
        network = {
            "clip": lambda: transformers.CLIPVisionModelWithProjection(
                transformers.CLIPVisionConfig(**wide, projection_dim=12)
            ),
            "siglip": lambda: transformers.SiglipVisionModel(
                transformers.SiglipVisionConfig(**wide)
            ),
            "dinov2": lambda: transformers.Dinov2Model(
                transformers.Dinov2Config(**small, image_size=56, patch_size=28)
            ),
        }[kind]()
    network.save_pretrained(tmp_path / kind)
    config = tmp_path / kind / "config.json"
    space = "dinov2" if kind == "dinov2" else "clip"
    told_apart(
        f"{space}:{tmp_path / kind}",
        lambda: edit(config, **{key: OF_TRANSFORMERS[kind][key]}),
        channels=3,
        size=32,
    )


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Files of a person's module, imported anew each time as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_space.py").write_text(MODULE)
    (tmp_path / "own_scale.py").write_text("SCALE = 1.0\n")
    (tmp_path / "own.json").write_text(json.dumps(OWN))

    def forget():
        for name in ("own_space", "own_scale"):
            sys.modules.pop(name, None)

    yield tmp_path, forget
    forget()


OWN_CHANGES = {
    "its source": lambda folder: (folder / "own_space.py").write_text(
        MODULE.replace("SCALE *", "2 * SCALE *")
    ),
    "a source that it imports": lambda folder: (folder / "own_scale.py").write_text(
        "SCALE = 3.00\n"
    ),
    "a list": lambda folder: edit(folder / "own.json", mean=[0.25]),
    "a buffer that is not saved": lambda folder: edit(folder / "own.json", std=[0.25]),
    "a layer": lambda folder: edit(folder / "own.json", size=4),
}


@pytest.mark.parametrize("place", ["Net", "made"])
@pytest.mark.parametrize("what", OWN_CHANGES)
def test_what_a_module_of_ones_own_reads_is_in_its_key(what, place, own_module):
    folder, forget = own_module

    def change():
        OWN_CHANGES[what](folder)
        forget()

    before, after = told_apart(f"import:own_space:{place}", change)
    assert before.shape != after.shape or not torch.allclose(before, after)


class Half(FeatureExtractor):
    """Weights in half precision, and a count of the calls, which decides nothing."""

    name = "half"
    dim = 4

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, 4, dtype=torch.bfloat16))
        self.scale, self.calls = torch.tensor(2.0, dtype=torch.bfloat16), 0

    def forward(self, images):
        self.calls += 1
        return images.flatten(1) @ self.weight.float()


def test_a_count_of_calls_is_no_setting_of_what_was_made():
    phi, seen = Half(), pixels()
    phi.freeze()
    before = phi.sha256
    assert torch.equal(cached_features(seen, phi), cached_features(seen, phi))
    assert phi.sha256 == before
    assert phi.calls == 3  # the first image twice, for the check, and all once


@pytest.mark.parametrize("library", ["torch", "timm", "transformers", "torch-fidelity", "scipy"])
def test_another_release_of_numeric_code_is_another_key(library, monkeypatch):
    version = fingerprint.version
    before = code_sha256.__wrapped__()
    assert before == code_sha256()
    monkeypatch.setattr(
        fingerprint, "version", lambda name: "0.0" if name == library else version(name)
    )
    assert code_sha256.__wrapped__() != before


def test_scores_of_another_space_are_not_taken_for_this_ones(tmp_path):
    """The issue's case: a second model with equal weights and other betas."""
    save_model(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "other")
    edit(tmp_path / "other" / "scheduler" / "scheduler_config.json", beta_end=0.5)
    real, drawn = pixels(20), ImageSet(255 - pixels(20).pixels, "drawn")

    def judged(name):
        space = Space(name, "held-out", make_features(f"denoiser:{tmp_path / name}", 1), real)
        return space.scores(drawn), space.floor()

    for one, two in zip(judged("base"), judged("other"), strict=True):
        assert one["fd"] != two["fd"]
        assert one["kid"] != two["kid"]


# Chains


class Own(DDIM):
    """A sampler with settings of every kind."""

    def __init__(self, denoiser, times, *, table, **options):
        super().__init__(denoiser, times, **options)
        self.table = table


@pytest.mark.parametrize(
    "values",
    [([1, 2], [1, 3]), (torch.zeros(2), torch.ones(2)), (None, 1), ({"a": 1}, {"a": 2})],
    ids=["lists", "tensors", "nothing", "dicts"],
)
def test_settings_of_a_chain_are_in_its_key(values, denoiser):
    one, again, two = (
        Own(denoiser, (600, 300), table=value).fingerprint
        for value in (values[0], values[0], values[1])
    )
    assert one == again != two


# What is kept beside a model, and runs


@pytest.mark.parametrize("kind", ["gamma", "genie-head"])
def test_estimates_are_of_one_schedule(kind, tmp_path):
    save_place(tmp_path, 40)
    few = {"gamma": ("-n", 1, "--batch-size", 1), "genie-head": ("--iterations", 1)}
    edit(
        tmp_path / "base" / "scheduler" / "scheduler_config.json",
        num_train_timesteps=12,
        beta_end=0.9,
    )
    done = mmd_ddm(tmp_path, kind, "base", "--data", "digits.npy", *few[kind])
    assert done.code == 0, done.err
    sampler = {"gamma": "analytic-dpm", "genie-head": "genie-head"}[kind]
    words = ("sample", "base", "-n", 1, "--sampler", sampler, "--steps", 2, "--out")
    done = mmd_ddm(tmp_path, *words, "drawn", "--spacing", "trailing")
    assert done.code == 0, done.err
    edit(tmp_path / "base" / "scheduler" / "scheduler_config.json", beta_end=0.8)
    again = mmd_ddm(tmp_path, *words, "again", "--spacing", "trailing")
    assert again.code == 2
    assert "is of another model: delete" in again.err


def test_a_model_is_named_with_its_schedule(tmp_path):
    save_model(tmp_path / "base")
    before = load_model(str(tmp_path / "base")).denoiser.sha256
    edit(tmp_path / "base" / "scheduler" / "scheduler_config.json", beta_end=0.5)
    assert load_model(str(tmp_path / "base")).denoiser.sha256 != before
