"""Models that look whole: every verb refuses them in one line, and writes nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import SMALL, contents, digits, mmd_ddm, save_model
from safetensors.torch import load_file, save_file

from mmd_ddm.models import find

VERBS = {
    "sample": ("-n", 2, "--out", "new"),
    "finetune": ("--data", "digits.npy", "--out", "new", *SMALL),
    "evaluate": ("--data", "digits.npy", "--features", "pixels", "-n", 4, "--out", "new.json"),
    "plan": (),
    "bench": ("--data", "digits.npy", "--samplers", "ddim", "--out", "new"),
}


def changed(folder, name, file, **changes):
    shutil.copytree(folder / "base", folder / name)
    config = json.loads((folder / name / file).read_text())
    (folder / name / file).write_text(json.dumps({**config, **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    np.save(folder / "digits.npy", digits(40))
    save_model(folder / "base")
    changed(folder, "size-15", "unet/config.json", sample_size=15)
    changed(folder, "betas", "scheduler/scheduler_config.json", trained_betas=[0.1, 0.2])
    changed(folder, "latent", "unet/config.json")
    (folder / "latent" / "model_index.json").unlink()
    (folder / "latent" / "vae").mkdir()
    changed(folder, "not-numbers", "unet/config.json")
    (weights,) = (folder / "not-numbers" / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    save_file({**tensors, "conv_out.bias": tensors["conv_out.bias"] * torch.nan}, weights)
    return folder


SAID = {
    "not-numbers": "has weights that are not numbers, in conv_out.bias",
    "size-15": "cannot be called with an image of 1x15x15",
    "latent": "is a latent diffusion model (vae beside its unet)",
    "betas": "trained_betas of the scheduler has 2 values, but num_train_timesteps is 1000",
}


@pytest.mark.parametrize(
    ("verb", "model"),
    [*(("sample", model) for model in SAID), *((verb, "not-numbers") for verb in [*VERBS][1:])],
)
def test_a_model_that_no_verb_takes(verb, model, folder):
    before = contents(folder)
    done = mmd_ddm(folder, verb, model, *VERBS[verb])
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert done.err.startswith("mmd-ddm: error: ")
    assert model in done.err
    assert SAID[model] in done.err
    assert contents(folder) == before


UNUSED = "not used of its scheduler config: set_alpha_to_one"
TELLS = {
    "plan": ("--batch-size", 2, "--features", "pixels"),
    "gamma": ("--data", "digits.npy", "-n", 1),
    "genie-head": ("--data", "digits.npy", "--iterations", 1),
    "sample": ("-n", 1, "--steps", 4, "--out", "drawn"),
}


@pytest.mark.parametrize("verb", TELLS)
def test_keys_that_are_not_used_are_named_by_every_verb(verb, tmp_path):
    np.save(tmp_path / "digits.npy", digits(40))
    save_model(tmp_path / "base")
    few = {"num_train_timesteps": 6, "beta_end": 0.999} if verb == "gamma" else {}
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    config = {**json.loads(path.read_text()), "set_alpha_to_one": False, **few}
    path.write_text(json.dumps(config))
    done = mmd_ddm(tmp_path, verb, "base", *TELLS[verb])
    assert done.code == 0, done.err
    assert UNUSED in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (
            "genie-head",
            "no GENIE head of fashion-mnist: distil it with `mmd-ddm genie-head fashion",
        ),
        ("analytic-dpm", "no Gamma of fashion-mnist: estimate it with `mmd-ddm gamma fashion"),
    ],
)
def test_what_a_bundled_model_lacks_is_told_by_its_name(sampler, said, tmp_path, monkeypatch):
    bundled = tmp_path / "package" / "base"
    shutil.copytree(find.BUNDLED_MODELS["fashion-mnist"], bundled)
    (bundled / "gamma.json").unlink()
    monkeypatch.setitem(find.BUNDLED_MODELS, "fashion-mnist", bundled)
    words = ("sample", "fashion-mnist", "-n", 1, "--steps", 5, "--out", "new")
    done = mmd_ddm(tmp_path, *words, "--sampler", sampler)
    assert (done.code, said in done.err) == (2, True), done.err
    (bundled / "scheduler" / "scheduler_config.json").unlink()
    done = mmd_ddm(tmp_path, *words)
    assert done.err.startswith("mmd-ddm: error: fashion-mnist lacks scheduler/"), done.err
    assert str(bundled) not in done.err
