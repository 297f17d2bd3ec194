"""Bad input: one line that names the value and the way out, exit code 2, nothing written."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import CACHE, NETWORK, SMALL, contents, digits, mmd_ddm, save_encoder, save_model
from PIL import Image

from mmd_ddm.config import ChainConfig
from mmd_ddm.models.gamma import Gamma


def finetune(model="base", data="digits.npy", out="new"):
    return ("finetune", model, "--data", data, "--out", out, *SMALL)


def sample(model="base", out="new"):
    return ("sample", model, "-n", 2, "--out", out)


def evaluate(model="base", data="digits.npy", out="new.json"):
    return ("evaluate", model, "--data", data, "-n", 4, "--features", "pixels", "--out", out)


def pretrain(data="digits.npy", out="new"):
    return (
        "pretrain",
        "--data",
        data,
        "--iterations",
        1,
        "--batch-size",
        2,
        *NETWORK,
        "--out",
        out,
    )


def _save_pictures(folder: Path, pictures) -> None:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:02d}.png")


def _change(source: Path, target: Path, file: str, **changes) -> None:
    shutil.copytree(source, target)
    config = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**config, **changes}))


def _make_data(folder: Path) -> None:
    np.save(folder / "digits.npy", digits(40))
    np.save(folder / "one.npy", digits(1))
    np.save(folder / "floats.npy", digits(20) / 255)
    np.save(folder / "colour.npy", np.zeros((20, 8, 8, 3), np.uint8))
    (folder / "nothing").mkdir()
    pictures = digits(12)
    _save_pictures(folder / "large", [*pictures, np.zeros((8, 9), np.uint8)])
    _save_pictures(folder / "coloured", [*pictures, np.zeros((8, 8, 3), np.uint8)])
    _save_pictures(folder / "corrupt", pictures)
    (folder / "corrupt" / "05.png").write_bytes(b"\x89PNG and nothing more")
    _save_pictures(folder / "truncated", pictures)
    broken = folder / "truncated" / "05.png"
    broken.write_bytes(broken.read_bytes()[:60])


def _make_models(folder: Path) -> None:
    base = folder / "base"
    save_model(base)
    save_model(folder / "grey-and-depth", channels=2)
    scheduler, unet = "scheduler/scheduler_config.json", "unet/config.json"
    _change(base, folder / "text-to-image", unet, _class_name="UNet2DConditionModel")
    _change(base, folder / "other-width", unet, block_out_channels=[8, 24])
    _change(base, folder / "no-width", unet, block_out_channels=None)
    _change(base, folder / "flow", scheduler, prediction_type="flow")
    _change(base, folder / "zero-snr", scheduler, rescale_betas_zero_snr=True)
    save_model(folder / "tuned", ChainConfig())
    _change(folder / "tuned", folder / "other-chain", scheduler, _mmd_ddm={"stpes": 3})
    _change(folder / "tuned", folder / "odd-chain", scheduler, _mmd_ddm=5)
    for name in ("half-written", "no-scheduler", "bad-config", "other-gamma"):
        shutil.copytree(base, folder / name)
    weights = next((folder / "half-written" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:3000])
    shutil.rmtree(folder / "no-scheduler" / "scheduler")
    (folder / "bad-config" / unet).write_text("{")
    gamma = Gamma("other", "digits.npy", "d", 2, 0, values=(0.5,) * 1000)
    gamma.save(folder / "other-gamma" / "gamma.json")
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "run.json").write_text('{"verb": "finetune"}')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything that can be wrong, once each."""
    folder = tmp_path_factory.mktemp("folder")
    _make_data(folder)
    _make_models(folder)
    save_encoder(folder / "judge.safetensors", 0)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "thesis.tex").write_text("my only copy")
    (folder / "notes.txt").write_text("my only notes")
    return folder


def refused(folder, words, *said):
    """The error line, once the rules of all errors are checked."""
    before = contents(folder)
    done = mmd_ddm(folder, *words)
    assert done.code == 2, done
    assert done.err.startswith("mmd-ddm: error: ")
    assert done.err.count("\n") == 1
    for part in said:
        assert part in done.err
    after = contents(folder)
    assert after == before, after.keys() ^ before.keys()


DATA = {
    "missing": ("no data at missing", "give a folder or zip"),
    "nothing": ("nothing holds no images", ".png"),
    "corrupt": ("corrupt/05.png cannot be read: it is a PNG picture, damaged", "--skip-damaged"),
    "truncated": ("truncated/05.png cannot be read: it is a PNG picture, damaged",),
    "large": ("large/12.png is 9x8 pixels", "8x8 are needed", "--resize"),
    "coloured": ("coloured/12.png has channels RGB", "--resize"),
    "colour.npy": ("colour.npy", "3x8x8", "takes 1x8x8"),
    "floats.npy": ("floats.npy", "float64", "uint8"),
    "notes.txt": ("notes.txt cannot be read: it is text; read are folders",),
    "one.npy": ("one.npy", "needed"),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("command", [finetune, evaluate])
def test_data_that_cannot_be_used(command, data, folder):
    refused(folder, command(data=data), *DATA[data])


@pytest.mark.parametrize("data", ["missing", "nothing", "corrupt", "large", "floats.npy"])
def test_data_that_cannot_be_pretrained_on(data, folder):
    refused(folder, pretrain(data=data), *DATA[data])


def test_data_that_cannot_be_held_out(folder):
    refused(folder, (*finetune(), "--heldout", "missing"), "no data at missing")
    refused(folder, (*finetune(), "--heldout", "one.npy"), "one.npy holds one image")
    both = "40 of the 40 images of digits.npy are also in digits.npy"
    refused(folder, (*finetune(), "--heldout", "digits.npy"), both, "hold out others")


def test_one_network_under_two_names_is_no_judge(folder):
    shutil.copy(folder / "judge.safetensors", folder / "copy.safetensors")
    said = ("optimised and encoder:copy.safetensors held-out, for they are one space",)
    words = (*finetune(), "--features", "encoder:judge.safetensors")
    refused(folder, (*words, "--set", "judges=encoder:copy.safetensors"), *said)


def test_a_file_that_may_not_be_read(folder, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    data = sorted((folder / "coloured").glob("*.png"))[0].relative_to(folder)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    done = mmd_ddm(folder, *finetune(data="coloured"))
    assert done.code == 2
    assert done.err.startswith(f"mmd-ddm: error: {data} cannot be read: Permission denied")
    assert done.err.count("\n") == 1


def test_a_folder_that_may_not_be_written(folder, monkeypatch):
    def forbidden(path, *more, **options):
        if CACHE not in path.parts:
            raise PermissionError(13, "Permission denied", str(path))

    (folder / CACHE).mkdir(exist_ok=True)
    monkeypatch.setattr(Path, "mkdir", forbidden)
    refused(folder, sample(), "mmd-ddm: error: new: Permission denied")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(folder):
    (folder / "secret").mkdir(mode=0)
    done = mmd_ddm(folder, *finetune(data="secret"))
    (folder / "secret").rmdir()
    assert done.code == 2
    assert "secret" in done.err


@pytest.mark.parametrize(
    ("model", "said"),
    {
        "missing": ("no model at 'missing'", "give a diffusers folder"),
        "./missing/model": ("no model at './missing/model'",),
        "": ("no model at ''", "fashion-mnist"),
        "some-owner/some-model": (
            "no folder some-owner/some-model",
            "offline?",
            "give its folder",
        ),
        "thesis": ("thesis is not a diffusers model", "unet/config.json"),
        "notes.txt": ("notes.txt is not a diffusers model",),
        "large": ("large is not a diffusers model",),
        "unfinished": ("unfinished is a run without a model", "repeating its command"),
        "text-to-image": ("UNet2DConditionModel", "a UNet2DModel is needed"),
        "bad-config": ("cannot load bad-config", "config.json"),
        "no-scheduler": ("no-scheduler lacks scheduler/scheduler_config.json",),
        "half-written": ("cannot load half-written", "safetensors"),
        "other-width": ("cannot load other-width", "size mismatch"),
        "no-width": ("cannot load no-width",),
        "flow": ("unknown prediction type 'flow'", "v_prediction"),
        "zero-snr": ("zero terminal SNR",),
        "grey-and-depth": ("images of 2 channels", "grey or colour"),
        "odd-chain": ("is a table of settings; got 5",),
        "other-chain": ("unknown setting stpes", "did you mean steps?"),
    }.items(),
)
def test_models_that_cannot_be_used(model, said, folder):
    refused(folder, sample(model=model), *said)


@pytest.mark.parametrize("command", [finetune, evaluate])
@pytest.mark.parametrize("model", ["missing", "some-owner/some-model", "thesis"])
def test_models_that_no_verb_takes(command, model, folder):
    refused(folder, command(model=model), model)


CHAINS = {
    "--steps 0": ("steps must be from 1 to T = 1000; got 0",),
    "--steps 1001": ("steps must be from 1 to T = 1000; got 1001",),
    "--sampler ddmi": ("unknown sampler 'ddmi'", "ddim"),
    "--spacing even": ("unknown spacing 'even'", "leading"),
    "--times 100,900": ("times must decrease", "got 100 before 900"),
    "--times 900,900": ("times must decrease", "got 900 before 900"),
    "--times 1000,10": ("time 1000 is outside 0 ... 999",),
    "--times 900,-1": ("time -1 is outside 0 ... 999",),
    "--sampler f-pndm --steps 3": ("at least 4 steps; got 3",),
    "--sampler s-pndm --steps 1 --spacing trailing": ("at least 2 steps; got 1",),
    "--sampler fastdpm-var --steps 1 --spacing trailing": ("at least 2 steps; got 1",),
    "--steps 2": ("starts at t = 750, where alpha = 0.057", "pure noise", "--spacing trailing"),
    "--times 700,90": ("starts at t = 700", "--start-from images"),
    "--sampler analytic-dpm": ("no Gamma of base: estimate it with `mmd-ddm gamma base",),
    "--sampler genie-head": ("no GENIE head of base: distil it with `mmd-ddm genie-head base",),
    "--times 900,ten": ("times are numbers with commas between", "'900,ten'"),
    "--device cuda:77": ("device 'cuda:77' is not available",),
    "--device gpu": ("device 'gpu' is not available",),
}


@pytest.mark.parametrize("words", CHAINS)
@pytest.mark.parametrize("command", [finetune, sample, evaluate])
def test_chains_that_cannot_be_walked(command, words, folder):
    refused(folder, (*command(), *words.split()), *CHAINS[words])


@pytest.mark.parametrize("command", [finetune, sample, evaluate])
def test_gamma_of_another_model(command, folder):
    words = (*command(model="other-gamma"), "--sampler", "analytic-ddim")
    refused(folder, words, "gamma.json is of another model: delete it, then `mmd-ddm gamma")


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--eta 1.5": ("eta must be from 0 to 1; got 1.5",),
        "--eta 0.5 --sampler heun": ("heun has no eta; got 0.5", "ddim"),
        "--order 3 --sampler heun": ("heun has no order; got 3", "ipndm, unipc, deis"),
        "--order 4 --sampler unipc": ("UniPC has orders 1 to 3", "got 4"),
        "--times 900,100 --steps 3": ("--times and --steps contradict",),
        "--times 900 --spacing leading": ("--times and --spacing contradict",),
        "-n 0": ("must be at least 1; got 0",),
        "--batch-size 0": ("must be at least 1", "got 2 and 0"),
        "--seed -1": ("a seed is from 0", "got -1"),
        f"--seed {2**64}": ("a seed is from 0", f"got {2**64}"),
    }.items(),
)
def test_draws_that_cannot_be_made(words, said, folder):
    refused(folder, (*sample(), *words.split()), *said)


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--batch-size 1": ("batch_size must be at least 2; got 1",),
        "--features pixel": ("unknown feature space 'pixel'", "pixels"),
        "--features encoder:nowhere": ("cannot read an encoder from nowhere",),
        "--kernel qubic": ("unknown kernel 'qubic'", "cubic"),
        "--reference banks": ("unknown reference 'banks'", "bank, minibatch"),
        "--iterations -1": ("iterations must be at least 0; got -1",),
        "--lr nan": ("lr must be finite; got nan",),
        "--seed -1": ("a seed is from 0", "got -1"),
        "--config missing.toml": ("cannot read the config missing.toml",),
        "--config notes.txt": ("cannot read the config notes.txt",),
        "--config thesis": ("cannot read the config thesis",),
        "--set chain.stpes=4": ("unknown setting chain.stpes", "did you mean chain.steps?"),
        "--set iteratoins=4": ("unknown setting iteratoins", "did you mean iterations?"),
        "--set iterations": ("key=value", "'iterations'"),
        "--set ema_decay=high": ("ema_decay takes float; got 'high'",),
        "--set ema_decay=1": ("ema_decay must be less than 1; got 1",),
        "--set chain=5": ("chain is a table of settings; got 5",),
        "--set save_every=0": ("save_every must be at least 1; got 0",),
        "--set judge_samples=1": ("judge_samples must be at least 2; got 1",),
        "--set select.samples=1": ("select.samples must be at least 2; got 1",),
        "--set select.features=encodre": ("unknown feature space 'encodre'", "encoder"),
        "--set judges=pixels": ("pixels cannot be held-out as well as optimised",),
        "--set objective.weights=1,2": ("objective.weights has 2 entries", "objective.features 1"),
        "--set precision=float16": ("unknown precision 'float16'", "bfloat16"),
    }.items(),
)
def test_settings_of_a_finetuning_that_cannot_be(words, said, folder):
    refused(folder, (*finetune(), *words.split()), *said)


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--batch-size 0": ("batch_size must be at least 1; got 0",),
        "--iterations 0": ("iterations must be at least 1; got 0",),
        "--minutes -1": ("minutes must be at least 0; got -1",),
        "--objective velocity": ("unknown objective 'velocity'", "eps, v, x_0, flow, edm"),
        "--set model=base --set network.channels=12,16": ("begin with the weights of base",),
        "--set network.channels=7,16": ("norm_num_groups = 4 does not divide 7",),
        "--set network.channels=[]": ("network.channels are at least 1; got []",),
        "--set network.channels=8": ("network.attention has 2 entries, network.channels 1",),
        "--set network.attention_head_dim=32": ("attention_head_dim = 32 is more than the 16",),
        "--set network.layers_per_block=0": ("network.layers_per_block must be at least 1",),
        "--set network.channels=8,8,8,8,8 --set network.attention=[true,true,true,true,true]": (
            "images of 8x8 cannot be halved 4 times",
        ),
    }.items(),
)
def test_settings_of_a_pretraining_that_cannot_be(words, said, folder):
    refused(folder, (*pretrain(), *words.split()), *said)


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "-n 1": ("at least 2 drawn and 4 real images", "-n 1"),
        "--features pixel": ("unknown feature space 'pixel'", "pixels"),
        "--seed -1": ("a seed is from 0", "got -1"),
    }.items(),
)
def test_evaluations_that_cannot_be(words, said, folder):
    refused(folder, (*evaluate(), *words.split()), *said)


@pytest.mark.parametrize("command", [finetune, sample, pretrain])
@pytest.mark.parametrize(
    ("out", "said"),
    {
        "thesis": ("thesis holds something else", "give a new or empty folder"),
        "base": ("base holds something else",),
        "notes.txt": ("notes.txt is a file", "give a folder"),
        "notes.txt/new": ("notes.txt is a file", "give a folder"),
        "unfinished": ("unfinished holds a",),
    }.items(),
)
def test_output_folders_that_hold_something_else(command, out, said, folder):
    if out == "unfinished" and command is finetune:
        said = ("unfinished holds a run with other settings",)
    refused(folder, command(out=out), *said)


@pytest.mark.parametrize(
    ("out", "said"),
    {
        "thesis": ("thesis is a folder", "give the name of a JSON file"),
        "notes.txt": ("notes.txt is not a file of results", "give another name"),
        "base/unet/config.json": ("config.json is not a file of results",),
        "notes.txt/new.json": ("notes.txt",),
    }.items(),
)
def test_output_files_that_hold_something_else(out, said, folder):
    refused(folder, evaluate(out=out), *said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing", "--out", "new.html"), ("missing has no run.json",)),
        (("thesis", "--out", "new.html"), ("thesis has no run.json and no results.json",)),
        (("unfinished", "--out", "new.html"), ("unfinished has no results.json", "finished run")),
        (("unfinished", "--out", "thesis"), ("thesis is a folder",)),
        (("unfinished", "--out", "notes.txt"), ("a report ends in .html", "got notes.txt")),
    ],
)
def test_reports_that_cannot_be(words, said, folder):
    refused(folder, ("report", *words), *said)


def test_demos_that_cannot_be(folder):
    refused(folder, ("demo", "--set", "iteratoins=1"), "did you mean iterations?")
