"""Looking at a run: nearest training images, interpolations, trajectories."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import contents, make_denoiser, mmd_ddm, places, read, save_model, save_place
from PIL import Image

from mmd_ddm.config import ChainConfig, FinetuneConfig, SelectConfig
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.maths.random import COPIES, sample_noise
from mmd_ddm.maths.slerp import slerp
from mmd_ddm.report.runs import companions
from mmd_ddm.report.sheets import grid
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.predictions import predictions
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.settings import to_mapping

CHAIN = ChainConfig(steps=3)
CONFIG = FinetuneConfig(model="base", data="digits.npy", chain=CHAIN, judges=("pixels",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run as finetuning leaves it, but not finetuned: its weights are the base's, shaken."""
    folder = tmp_path_factory.mktemp("made")
    save_place(folder, 60)
    shake(save_model(folder / "run" / "model", CHAIN), folder / "run" / "model")
    record = {"verb": "finetune", "settings": to_mapping(CONFIG)}
    (folder / "run" / "run.json").write_text(json.dumps(record))
    # What the finetuned model draws, as if it had been trained on it.
    np.save(folder / "copies.npy", drawn(folder, "run", 12)[:, 0].numpy())
    return folder


def shake(denoiser, folder):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for p in denoiser.network.parameters():
            p += 0.2 * torch.randn_like(p)
    denoiser.network.save_pretrained(folder / "unet")


def drawn(folder, model, n):
    walk = build_sampler(CHAIN, load_model(str(folder / model)).denoiser)
    return draw(walk, n, purpose=COPIES)[0]


@pytest.fixture
def folder(made, tmp_path):
    """A copy to write into."""
    return shutil.copytree(made, tmp_path / "copy")


# Neighbours


def neighbors(folder, **changes):
    """The finding of a search in a run of changed settings."""
    record = {"verb": "finetune", "settings": to_mapping(replace(CONFIG, **changes))}
    (folder / "run" / "run.json").write_text(json.dumps(record))
    done = mmd_ddm(folder, "neighbors", "run", "-n", 12, "-k", 2)
    assert (done.code, done.err) == (0, ""), done.err
    found = read(folder / "run" / "neighbors" / "neighbors.json")
    assert found["sentence"] in " ".join(done.out.split())
    return found


def test_a_model_that_repeats_its_training_images_is_found_out(folder):
    whole = SelectConfig(every=0)  # no copy is set apart for selection
    found = neighbors(folder, data="copies.npy", heldout="digits.npy", select=whole)
    assert found["sentence"].startswith("Copying is suspected: in pixels")
    assert found["copying"]
    assert found["not_authentic"]["finetuned"] == 1
    assert found["nearer"]["finetuned than held-out real"]["share"] == 1
    assert found["nearer"]["finetuned than base"]["share"] == 1
    assert found["distance_quantiles"]["finetuned"]["0.75"] < 1e-6
    # On the picture, each finetuned sample stands beside its copy.
    sheet = Image.open(folder / "run" / "neighbors" / "neighbors.png")
    for image in drawn(folder, "run", 3):
        assert len(places(sheet, image, 7)) >= 2


def test_honest_samples_are_not_accused(folder):
    found = neighbors(folder)
    assert found["sentence"].startswith("No sign of copying: in pixels")
    assert (found["data"]["images"], found["real"], found["n"]) == (44, 12, 12)  # 4 select
    # Noise lies further from digits than other digits do.
    assert found["nearer"]["finetuned than held-out real"]["share"] < 0.1
    assert found["nearer"]["finetuned than held-out real"]["p"] > 0.9
    assert found["not_authentic"]["finetuned"] == 0 < found["not_authentic"]["held-out real"] < 1
    medians = {name: q["0.5"] for name, q in found["distance_quantiles"].items()}
    assert medians["held-out real"] < min(medians["base"], medians["finetuned"])
    (shown,) = companions(folder / "run")
    assert shown.sentence == found["sentence"]


def test_other_settings_in_the_same_folder_are_refused(folder):
    neighbors(folder)
    before = contents(folder)
    done = mmd_ddm(folder, "neighbors", "run", "-n", 12, "-k", 3)
    assert done.code == 2
    assert "k: 2 -> 3" in done.err
    assert contents(folder) == before


# Interpolation


@pytest.mark.parametrize("chain", [CHAIN, replace(CHAIN, eta=1.0)], ids=["ddim", "ddpm"])
def test_rows_are_drawn_between_the_noises_of_the_samples(chain, folder):
    shutil.rmtree(folder / "run" / "model")
    shake(save_model(folder / "run" / "model", chain), folder / "run" / "model")
    done = mmd_ddm(folder, "interpolate", "run", "-n", 2, "--frames", 3, "--seed", 5)
    assert (done.code, done.err) == (0, ""), done.err
    sheet = Image.open(folder / "run" / "interpolation" / "interpolation.png")
    tops = []
    for first in (5, 7):
        for model in ("base", "run"):
            sampler = build_sampler(chain, load_model(str(folder / model)).denoiser)
            z = sample_noise((first, first + 1), (1, 8, 8), sampler.draws)
            noise = z[1:, :1].expand(-1, 3, -1, -1, -1) if sampler.stochastic else None
            with torch.no_grad():
                row = to_uint8(sampler(slerp(z[0, 0], z[0, 1], 3), noise))
            ((top, _),) = places(sheet, grid(row.numpy(), 3), 7)
            tops.append(top)
    assert tops == sorted(tops)
    (shown,) = companions(folder / "run")
    assert "2 pairs of noises, 3 images each, in 3 ddim steps" in shown.sentence


# Trajectories


@pytest.mark.parametrize(("name", "calls"), [("ddim", 3), ("heun", 5), ("genie", 3)])
def test_every_network_call_predicts_the_image(name, calls):
    sampler = make_sampler(name, make_denoiser(), (600, 300, 0))
    with torch.no_grad():
        x_T = sample_noise(range(2), (1, 8, 8))[0]
        with predictions(sampler) as found:
            images = to_uint8(sampler(x_T))
        assert len(found) == calls
        alpha_t, sigma_t = sampler.schedule(600)
        x_0 = (x_T - sigma_t * sampler.denoiser(x_T, 600)) / alpha_t
        assert (found[0][0], found[-1][0]) == (600, 0)
        assert torch.equal(found[0][1], to_uint8(x_0))
        if name == "ddim":  # whose last step ends at its last prediction
            assert torch.equal(found[-1][1], images)
        sampler(x_T)
    assert len(found) == calls


def test_sample_shows_them(folder):
    words = ("sample", "base", "-n", 3, "--steps", 20, "--out", "s", "--trajectory")
    assert mmd_ddm(folder, *words).code == 0
    strip = Image.open(folder / "s" / "trajectory.png")
    sampler = build_sampler(ChainConfig(steps=20), load_model(str(folder / "base")).denoiser)
    with predictions(sampler) as found:
        pixels, _ = draw(sampler, 3)
    lefts = [places(strip, grid(found[i][1].numpy(), 1), 7)[0][1] for i in (0, 10, 19)]
    assert lefts == sorted(lefts)
    assert places(strip, grid(pixels.numpy(), 1), 7)[-1][1] > lefts[-1]
    assert strip.width < 17 * (10 * 7 + 8)  # 16 of the 20 calls


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("neighbors", "base"), "base is no finished run of finetune"),
        (("neighbors", "run", "-n", 1), "-n must be at least 2 and -k at least 1; got 1 and 4"),
        (("neighbors", "run", "-k", 99), "holds 44 images; -k 99 takes more"),
        (("neighbors", "run", "--space", "nonsense"), "unknown feature space 'nonsense'"),
        (("neighbors", "run", "--data", "nothing"), "no data at nothing"),
        (("neighbors", "run", "--out", "base"), "base holds something else"),
        (("interpolate", "run", "--frames", 1), "--frames 2; got 4 and 1"),
        (("interpolate", "run", "--out", "base"), "base holds something else"),
        (("interpolate", "unfinished"), "unfinished is no finished run of finetune"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_leaves_no_trace(words, said, folder):
    (folder / "unfinished").mkdir()
    shutil.copy(folder / "run" / "run.json", folder / "unfinished")
    before = contents(folder)
    done = mmd_ddm(folder, *words)
    assert done.code == 2
    assert done.err.startswith("mmd-ddm: error: ")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert contents(folder) == before


def test_a_base_that_has_changed_is_refused(folder):
    record = read(folder / "run" / "run.json")
    record["inputs"] = {"model_sha256": "0" * 64}
    (folder / "run" / "run.json").write_text(json.dumps(record))
    done = mmd_ddm(folder, "interpolate", "run")
    assert done.code == 2
    assert "base has changed since run was finetuned from it" in done.err
