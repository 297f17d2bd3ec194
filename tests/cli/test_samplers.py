"""Two iterations of finetuning through every sampler; ``sample`` from given images."""

import math

import numpy as np
import pytest
from commands import (
    digits,
    forge_gamma,
    forge_head,
    mmd_ddm,
    pictures,
    read,
    save_place,
)
from diffusers import UNet2DModel
from diffusers.schedulers import AysSchedules

from mmd_ddm.config import ChainConfig, FinetuneConfig, ObjectiveConfig, SelectConfig
from mmd_ddm.jobs.train import train
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.runs.folder import read_events
from mmd_ddm.samplers.registry import SAMPLERS

TWO_ITERATIONS = (
    "--data", "digits.npy", "--steps", 4, "--iterations", 2, "--batch-size", 2,
    "--features", "pixels", "--set", "judges=encoder:judge.safetensors", "--set", "select.every=0",
    "--set", "judge_samples=2", "--set", "compare_steps=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    save_place(folder, 12)
    forge_gamma(folder)
    forge_head(folder)
    return folder


ON_THE_COMMAND_LINE = ("ddim", "ddpm-small", "dpm-solver++-2m")


@pytest.mark.parametrize("sampler", ON_THE_COMMAND_LINE)
def test_a_sampler_is_finetuned_through_on_the_command_line(sampler, folder):
    words = ("finetune", "base", "--sampler", sampler, *TWO_ITERATIONS, "--out", sampler)
    done = mmd_ddm(folder, *words)
    assert done.code == 0, done.err
    check_norms(folder / sampler)


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(s, marks=pytest.mark.slow) if s == "genie" else s
        for s in SAMPLERS
        if s not in ON_THE_COMMAND_LINE
    ],
)
def test_every_other_sampler_can_be_finetuned_through(sampler, folder):
    config = FinetuneConfig(
        str(folder / "base"), str(folder / "digits.npy"), chain=ChainConfig(4, sampler),
        objective=ObjectiveConfig(("pixels",)), select=SelectConfig(every=0), judges=(),
        iterations=2, batch_size=2, compare_steps=(),
    )  # fmt: skip
    train(config, folder / sampler)
    check_norms(folder / sampler)


def check_norms(run):
    events = read_events(run)
    norms = [event["grad_norm"] for event in events if event["event"] == "train"]
    assert len(norms) == 2
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)


def test_walks_begin_from_given_images(folder):
    """From time 0, where a walk is one small correction, they come out as they went in."""
    words = ("sample", "base", "-n", 5, "--start-from", "digits.npy", "--batch-size", 2)
    done = mmd_ddm(folder, *words, "--times", "0", "--out", "near")
    assert done.code == 0, done.err
    change = pictures(folder / "near").astype(int) - digits(5)
    assert np.abs(change).max() < 12
    assert read(folder / "near" / "run.json")["settings"]["start_from"] == "digits.npy"
    assert mmd_ddm(folder, *words, "--times", "900,0", "--out", "far").code == 0
    assert np.abs(pictures(folder / "far").astype(int) - digits(5)).mean() > 24


def test_a_published_list_of_times_reaches_the_network_as_it_is(folder, monkeypatch):
    """The noise levels of Align Your Steps for SDXL, whose times here are fractional."""
    levels = np.array(AysSchedules["StableDiffusionXLSigmas"][:-1])
    assert levels[[0, 9]].tolist() == [14.615, 0.113]
    listed = [999, *NoiseSchedule.linear().time_of(-np.log(levels)).round(1).tolist()]
    asked = []
    forward = UNet2DModel.forward

    def note(self, x_t, t):
        asked.extend([t] * (t.device.type != "meta"))  # with which it is called when it is loaded
        return forward(self, x_t, t)

    monkeypatch.setattr(UNet2DModel, "forward", note)
    words = ("sample", "base", "-n", 2, "--sampler", "dpm-solver++-2m", "--out", "listed")
    done = mmd_ddm(folder, *words, "--times", ",".join(map(str, listed)))
    assert done.code == 0, done.err
    assert all(t.is_floating_point() or float(t[0]) == 999 for t in asked)
    assert [float(t[0]) for t in asked] == pytest.approx(listed, rel=1e-6)
    assert read(folder / "listed" / "run.json")["settings"]["chain"]["times"] == listed


def test_as_many_given_images_as_are_drawn(folder):
    words = ("sample", "base", "-n", 13, "--start-from", "digits.npy", "--out", "more")
    done = mmd_ddm(folder, *words)
    assert done.code == 2
    assert done.err == "mmd-ddm: error: digits.npy holds 12 images; -n 13 takes as many\n"
    assert not (folder / "more").exists()
