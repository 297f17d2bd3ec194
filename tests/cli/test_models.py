"""Models that look whole: every verb refuses them in one line, and writes nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import SMALL, contents, digits, mmd_ddm, save_model
from safetensors.torch import load_file, save_file

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
