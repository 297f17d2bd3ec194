"""``mmd-ddm finetune --sampler NAME``, two iterations of each; ``sample`` from given images."""

import json
import math

import numpy as np
import pytest
from commands import digits, mmd_ddm, save_encoder, save_model
from test_samplers_analytic import forge_gamma

from mmd_ddm.samplers import SAMPLERS

TWO_ITERATIONS = (
    "--data", "digits.npy", "--steps", 4, "--iterations", 2, "--batch-size", 2,
    "--features", "pixels", "--set", "judges=encoder:judge.safetensors", "--set", "select.every=0",
    "--set", "judge_samples=2", "--set", "compare_steps=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    np.save(folder / "digits.npy", digits(12))
    save_model(folder / "base")
    forge_gamma(folder)
    save_encoder(folder / "judge.safetensors", 0)
    return folder


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_can_be_finetuned(sampler, folder):
    words = ("finetune", "base", "--sampler", sampler, *TWO_ITERATIONS, "--out", sampler)
    done = mmd_ddm(folder, *words)
    assert done.code == 0, done.err
    lines = (folder / sampler / "log.jsonl").read_text(encoding="utf-8").splitlines()
    norms = [json.loads(line)["grad_norm"] for line in lines]
    assert len(norms) == 2
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)
