"""Analytic-DPM and -DDIM: exact on Gaussian data; Gamma: estimated, kept, refused, exported."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from commands import (
    SMALL,
    forge_gamma,
    mmd_ddm,
    pictures,
    read,
    save_encoder,
    save_model,
    save_place,
)
from gaussian import VARIANCE, GaussianDenoiser, noise

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.gamma import second_moments
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.gamma import Gamma, gamma_file, read_gamma
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.registry import make_sampler

TIMES = (999, 700, 402.5, 211, 77, 8)
COSINE = NoiseSchedule.from_config({"beta_schedule": "squaredcos_cap_v2"})


def record(values):
    return Gamma("w", "data", "d", 1, 0, values=tuple(values))


def gaussian(schedule=None):
    """Gaussian data, and the second moments of their eps in closed form."""
    denoiser = GaussianDenoiser(schedule)
    pairs = map(denoiser.schedule, range(len(denoiser.schedule)))
    denoiser.beside["gamma"] = record(s**2 / (a**2 * VARIANCE + s**2) for a, s in pairs)
    return denoiser


@pytest.mark.parametrize(
    ("name", "eta"), [("analytic-dpm", 0), ("analytic-ddim", 0), ("analytic-ddim", 0.7)]
)
@pytest.mark.parametrize("schedule", [NoiseSchedule.linear(), COSINE])
def test_every_step_has_the_variance_of_the_data(name, eta, schedule):
    denoiser = gaussian(schedule)
    sampler = make_sampler(name, denoiser, TIMES, eta=eta)
    one, none = torch.ones(1, 1, 2, 2, dtype=torch.float64), torch.zeros(1, 1, 2, 2)
    for t, s in list(pairwise(TIMES))[:-1]:
        (a_t, s_t), (a_s, s_s) = schedule(t), schedule(s)
        slope = sampler.step(one, t, s, Walk(denoiser, False), none)[0, 0, 0, 0].item()
        after = slope**2 * (a_t**2 * VARIANCE + s_t**2) + sampler.std(t, s) ** 2
        # Between the training times Gamma is interpolated.
        assert after == pytest.approx(a_s**2 * VARIANCE + s_s**2, rel=1e-4)


def test_fixed_variances_miss_it():
    """So the test above can fail."""
    denoiser, (t, s) = gaussian(), (211, 77)
    small = make_sampler("ddpm-small", denoiser, TIMES).std(t, s)
    assert make_sampler("analytic-dpm", denoiser, TIMES).std(t, s) > 1.01 * small


def test_dpm_is_ddim_at_eta_1_but_for_the_last_step():
    denoiser = gaussian()
    dpm = make_sampler("analytic-dpm", denoiser, TIMES)
    ddim = make_sampler("analytic-ddim", denoiser, TIMES, eta=1.0)
    z = torch.stack([noise(seed=i) for i in range(1, 7)])
    x_t = noise()
    for i, (t, s) in enumerate(list(pairwise(TIMES))[:-1]):
        ends = [each.step(x_t, t, s, Walk(denoiser, False), z[i]) for each in (dpm, ddim)]
        torch.testing.assert_close(*ends, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "schedule", "levels"),
    [
        ("analytic-dpm", NoiseSchedule.linear(), 2),
        ("analytic-dpm", COSINE, 1),
        ("analytic-ddim", NoiseSchedule.linear(), 1),
    ],
)
def test_the_last_noise_moves_a_pixel_by_so_many_levels(name, schedule, levels):
    sampler = make_sampler(name, gaussian(schedule), TIMES)
    t, s = TIMES[-2:]
    mean_move = sampler.std(t, s) * (2 / np.pi) ** 0.5
    assert mean_move == pytest.approx(levels / 127.5)
    assert sampler.std(s, None) == 0


def test_variances_are_clipped_to_those_of_images():
    denoiser = gaussian()
    for value, data_variance in ((2.0, 0.0), (-1e6, 1.0)):
        denoiser.beside["gamma"] = record([value] * 1000)
        std = make_sampler("analytic-dpm", denoiser, TIMES).std(700, 211)
        small = make_sampler("ddpm-small", denoiser, TIMES).std(700, 211)
        (_, s_t), (a_s, _) = denoiser.schedule(700), denoiser.schedule(211)
        beta = 1 - denoiser.schedule.abar(700) / denoiser.schedule.abar(211)
        by_x_0 = a_s * beta / s_t**2
        assert std**2 == pytest.approx(small**2 + by_x_0**2 * data_variance)


def test_betas():
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(NoiseSchedule.linear().betas, betas, rtol=1e-9)
    assert NoiseSchedule.linear().has_linear_betas
    assert not COSINE.has_linear_betas


def test_second_moments_are_those_of_the_images(schedule):
    class Half(GaussianDenoiser):  # eps = x_t / 2
        device = torch.device("cpu")

        def forward(self, x_t, t, condition=None):
            return x_t / 2

    denoiser = Half(NoiseSchedule.linear(20, 1e-4, 0.9))
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(4).view(2, 1, 2, 2)
    options = {"samples": 3000, "seed": 0, "batch_size": 1000}
    values = list(second_moments(denoiser, pixels, start=0, **options))
    np.testing.assert_allclose(values, 0.25, rtol=0.05)  # x_0^2 is 1 everywhere
    assert list(second_moments(denoiser, pixels, start=15, **options)) == values[15:]


# The command line


@pytest.fixture
def folder(tmp_path):
    save_place(tmp_path, 12)
    return tmp_path


def gamma(folder, *words):
    return mmd_ddm(folder, "gamma", "base", "--data", "digits.npy", "-n", 2, *words)


@pytest.mark.slow
def test_gamma_is_estimated_and_resumed(folder):
    assert gamma(folder).code == 0
    path = folder / "base" / "gamma.json"
    whole = read(path)
    assert (len(whole["values"]), whole["samples"]) == (1000, 2)
    assert read_gamma(folder / "base", whole["weights"], 1000) == Gamma.load(path)
    path.write_text(json.dumps({**whole, "values": whole["values"][:983]}))
    assert gamma(folder).code == 0
    assert read(path)["values"] == pytest.approx(whole["values"], rel=1e-9)
    done = gamma(folder, "--seed", 1)
    assert done.code == 2
    assert "was made otherwise or of another model: delete it first" in done.err


def draw_from(folder, model):
    words = ("sample", model, "-n", 2, "--steps", 3, "--sampler", "analytic-ddim", "--out", "new")
    return mmd_ddm(folder, *words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "no Gamma of base: estimate it with `mmd-ddm gamma base --data DATA`"),
        ({"weights": "other"}, "gamma.json is of another model: delete it, then `mmd-ddm gamma"),
        ({"values": [0.5] * 7}, "gamma.json has 7 of 1000 times: repeat the command"),
        ({"values": ["a"]}, "gamma.json is not a Gamma of ours"),
        ({"vlaues": []}, "gamma.json is not a Gamma of ours"),
    ],
)
def test_a_gamma_that_cannot_be_used(change, said, folder):
    if change is not None:
        forge_gamma(folder, **change)
    done = draw_from(folder, "base")
    assert done.code == 2
    assert done.err.startswith("mmd-ddm: error: ")
    assert done.err.count("\n") == 1
    assert said in done.err
    assert not (folder / "new").exists()


@pytest.mark.parametrize("source", ["", "owner/model"])
def test_a_model_without_a_folder_has_no_gamma(source):
    with pytest.raises(ValueError, match="download it and give the folder"):
        gamma_file(source)


@pytest.mark.parametrize("words", [("-n", 0), ("--batch-size", 0), ("--seed", -1)])
def test_impossible_counts(words, folder):
    assert gamma(folder, *words).code == 2


def test_a_finetuned_model_keeps_the_gamma_of_its_chain(folder):
    forge_gamma(folder)
    save_encoder(folder / "judge.safetensors", 0)
    words = ("finetune", "base", "--data", "digits.npy", "--out", "run", "--steps", 3, *SMALL)
    done = mmd_ddm(
        folder, *words, "--sampler", "analytic-dpm", "--set", "lr=0.1", "--set", "select.every=0"
    )
    assert done.code == 0, done.err
    kept = Gamma.load(folder / "run" / "model" / "gamma.json")
    base = Gamma.load(folder / "base" / "gamma.json")
    assert kept.weights != base.weights == kept.estimated_with
    assert kept.values == base.values
    assert draw_from(folder, "run").code == 0
    assert len(pictures(folder / "new")) == 2


def test_gamma_travels_with_a_copy_of_the_folder_only(folder):
    forge_gamma(folder)
    shutil.copytree(folder / "base", folder / "copy")
    assert draw_from(folder, "copy").code == 0
    other = save_model(folder / "other", ChainConfig(), channels=1)
    assert other.source == ""
