"""From settings to objects: models by name, chains, data, networks, devices."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmd_ddm.config import (
    ChainConfig,
    FinetuneConfig,
    NetworkConfig,
    PretrainConfig,
    SelectConfig,
)
from mmd_ddm.jobs.build import (
    Model,
    build_data,
    build_device,
    build_network,
    build_sampler,
    load_model,
    precision_dtype,
    resolve_chain,
)
from mmd_ddm.jobs.chain import choose_chain
from mmd_ddm.jobs.pretrain import pretrain
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.export import export, make_pipeline
from mmd_ddm.models.find import BUNDLED_MODELS
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import read_events
from mmd_ddm.samplers.ddim import DDIM

SCHEDULER = {"num_train_timesteps": 1000, "prediction_type": "epsilon", "clip_sample": False}
SMALL = NetworkConfig(
    channels=(8, 16), attention=(False, True), attention_head_dim=8, norm_num_groups=4
)


@pytest.fixture
def folder(denoiser, tmp_path):
    export(denoiser, SCHEDULER, None, tmp_path / "base")
    return tmp_path / "base"


# Models


def test_the_bundled_model():
    model = load_model("fashion-mnist")
    assert model.name == "fashion-mnist"
    assert model.chain is None
    assert model.denoiser.shape == (1, 28, 28)
    assert model.denoiser.prediction == "epsilon"
    assert sum(p.numel() for p in model.denoiser.parameters()) == 1_540_681
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.float32}
    assert not model.denoiser.network.training


def test_the_bundled_model_denoises():
    """It finds the noise that was put on images it never saw, better than any constant."""
    from mmd_ddm.data.images import load_images
    from mmd_ddm.maths.pixels import from_uint8

    denoiser = load_model("fashion-mnist").denoiser
    x_0 = from_uint8(load_images("fashion-mnist").pixels[:8])
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    for t, most in ((100, 0.2), (500, 0.03), (900, 0.01)):
        alpha_t, sigma_t = denoiser.schedule(t)
        with torch.no_grad():
            error = (denoiser(alpha_t * x_0 + sigma_t * eps, t) - eps).square().mean()
        assert error < most


def test_a_folder_and_a_run_are_the_same_model(folder, denoiser, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    (run / "run.json").write_text("{}")
    x_t = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    for name in (folder, run):
        model = load_model(str(name))
        assert torch.equal(model.denoiser(x_t, 500), denoiser(x_t, 500))
        assert model.scheduler_config["num_train_timesteps"] == 1000


@pytest.mark.parametrize(
    "chain", [ChainConfig(steps=4), ChainConfig(times=(900.0, 30.5), sampler="heun", clip=True)]
)
def test_a_finetuned_model_knows_its_chain(chain, denoiser, tmp_path):
    resolved = resolve_chain(chain, denoiser)
    export(denoiser, SCHEDULER, asdict(resolved), tmp_path / "model")
    assert load_model(str(tmp_path / "model")).chain == resolved


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_stay_float32_in_any_precision(precision, folder):
    denoiser = load_model(str(folder), precision=precision).denoiser
    assert denoiser.autocast == precision_dtype(precision)
    assert {p.dtype for p in denoiser.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["", "nowhere", "./no/where", "/no/where", "a/b/c"])
def test_nothing_of_that_name(name):
    with pytest.raises(ValueError, match="give a diffusers folder, a run, a hub id") as caught:
        load_model(name)
    assert repr(name) in str(caught.value)


def test_a_hub_id_without_a_network_says_so():
    with pytest.raises(ValueError, match="no folder owner/name, and the hub") as caught:
        load_model("owner/name")
    assert "\n" not in str(caught.value)


def test_a_run_that_was_not_finished_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="is a run without a model"):
        load_model(str(tmp_path))


def test_what_is_no_diffusion_model_is_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not a diffusers model"):
        load_model(str(tmp_path / "empty"))
    config = folder / "unet" / "config.json"
    other = {**json.loads(config.read_text()), "_class_name": "AutoencoderKL"}
    config.write_text(json.dumps(other))
    with pytest.raises(ValueError, match="holds a AutoencoderKL"):
        load_model(str(folder))


def test_damaged_weights_are_refused_in_one_line(folder):
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot load ") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_refused(value, denoiser, tmp_path):
    denoiser.network.mid_block.resnets[0].conv1.weight.data[0, 0, 0, 0] = value
    export(denoiser, SCHEDULER, None, tmp_path / "base")
    with pytest.raises(ValueError, match=r"not numbers, in .*conv1.weight: take an earlier"):
        load_model(str(tmp_path / "base"))
    with pytest.raises(ValueError, match="not numbers"):
        load_model(make_pipeline(denoiser, SCHEDULER, None))


def test_a_training_of_images_that_no_model_draws_is_refused_before_it(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((20, 8, 8, 4), np.uint8))
    config = PretrainConfig(data=str(tmp_path / "images.npy"), iterations=10**9)
    with pytest.raises(ValueError, match=r"images.npy holds images of 4 channels; grey or colour"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_may_have_the_name_of_a_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.zeros((20, 8, 8), np.uint8))
    config = PretrainConfig(data="images.npy", iterations=1, batch_size=2, network=SMALL)
    found = pretrain(config, Path("fashion-mnist"))
    own = weights_sha256(load_model("fashion-mnist/model").denoiser.network)
    assert read_events(found.folder)[-1]["weights_sha256"] == own


def test_the_bundled_model_of_classes_draws_those_it_is_asked_for():
    name, denoiser = "fashion-mnist", load_model("fashion-mnist-classes").denoiser
    assert (len(denoiser.classes), denoiser.null_label) == (10, 10)
    config = FinetuneConfig("fashion-mnist-classes", name, heldout=f"{name}-heldout")
    real = build_data(config, denoiser.shape, labels=True).heldout
    means = [real.pixels[real.labels == c].float().mean(0).flatten() for c in range(10)]
    sampler = build_sampler(resolve_chain(ChainConfig(5, "unipc"), denoiser), denoiser)
    (x_T,) = sample_noise(range(50), denoiser.shape)
    asked = torch.arange(50) % 10
    images = sampler(x_T, None, Condition.of_labels(asked)).flatten(1)
    likest = torch.cdist(127.5 * (images + 1), torch.stack(means)).argmin(1)
    assert (likest == asked).float().mean() > 0.4  # by chance 0.1


def test_bundled_names_are_folders():
    assert all((path / "model_index.json").is_file() for path in BUNDLED_MODELS.values())


# Devices


def test_devices():
    assert build_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert build_device("auto").type == expected
    for name in ("cuda:77", "gpu", "meta:x"):
        with pytest.raises(ValueError, match=f"device '{name}' is not available") as caught:
            build_device(name)
        assert "\n" not in str(caught.value)


def test_precisions():
    assert precision_dtype("float32") is None
    assert precision_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match="'half'; choose one of float32, bfloat16"):
        precision_dtype("half")


# Chains


def test_times_and_their_number_are_filled_in(denoiser):
    spaced = resolve_chain(ChainConfig(steps=4, spacing="trailing"), denoiser)
    assert spaced.times == (999, 749, 499, 249)
    custom = resolve_chain(ChainConfig(steps=9, times=(900.0, 30.5)), denoiser)
    assert (custom.steps, custom.times) == (2, (900, 30.5))
    assert resolve_chain(custom, denoiser) == custom
    with pytest.raises(ValueError, match="must decrease"):
        resolve_chain(ChainConfig(times=(1.0, 2.0)), denoiser)


@pytest.mark.parametrize(
    "chain", [ChainConfig(times=(700.0, 30.5)), ChainConfig(steps=600, spacing="leading")]
)
def test_only_a_walk_from_images_starts_anywhere(chain, denoiser):
    for resolve in (
        lambda **how: resolve_chain(chain, denoiser, **how).times,
        lambda **how: build_sampler(chain, denoiser, **how).times,
        lambda **how: choose_chain(Model("base", denoiser, {}, None), chain, **how).times,
    ):
        with pytest.raises(ValueError, match=rf"starts at t = {599 if not chain.times else 700}"):
            resolve()
        assert resolve(truncated=True)[0] in (599, 700)


def test_a_chain_becomes_its_sampler(denoiser):
    chain = ChainConfig(steps=3, eta=0.5, clip=True)
    sampler = build_sampler(chain, denoiser, recompute=True)
    assert isinstance(sampler, DDIM)
    assert (sampler.times, sampler.eta, sampler.clip) == ((833, 500, 166), 0.5, True)
    assert sampler.recompute
    assert sampler.denoiser is denoiser
    assert not build_sampler(chain, denoiser).recompute


# Data


def test_given_images_are_held_out(tmp_path):
    for name, first, n in (("a.npy", 0, 40), ("b.npy", 100, 3)):
        images = np.repeat(np.arange(first, first + n, dtype=np.uint8), 64).reshape(n, 8, 8)
        np.save(tmp_path / name, images)
    names = {"data": str(tmp_path / "a.npy"), "heldout": str(tmp_path / "b.npy")}
    config = FinetuneConfig(**names, select=SelectConfig(every=0))
    data = build_data(config, (1, 8, 8))
    assert data.matched.pixels[:, 0, 0, 0].tolist() == list(range(40))
    assert data.heldout.pixels[:, 0, 0, 0].tolist() == [100, 101, 102]
    data = build_data(replace(config, heldout=""), (1, 8, 8))
    assert (len(data.matched), len(data.heldout), data.selection) == (32, 8, None)
    data = build_data(FinetuneConfig(**names), (1, 8, 8))
    assert (len(data.matched), len(data.selection)) == (36, 4)


# Networks


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12)])
def test_a_network_for_its_images(shape):
    network = build_network(SMALL, shape)
    x = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    assert network(x, 10).sample.shape == (2, *shape)
    kinds = [type(block).__name__ for block in (*network.down_blocks, *network.up_blocks)]
    assert kinds == ["DownBlock2D", "AttnDownBlock2D", "AttnUpBlock2D", "UpBlock2D"]


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"attention": (True,)}, (1, 8, 8), "attention has 1 entries, network.channels 2"),
        ({}, (1, 7, 8), "images of 7x8 cannot be halved 1 times"),
        ({"norm_num_groups": 5}, (1, 8, 8), "norm_num_groups = 5 does not divide 8"),
        ({"attention_head_dim": 17}, (1, 8, 8), "attention_head_dim = 17 is more than the 16"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options, shape, message):
    with pytest.raises(ValueError, match=message):
        build_network(NetworkConfig(**{**asdict(SMALL), **options}), shape)
