"""``mmd-ddm verify``: what a run recorded, recomputed; and what it does not trust."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from commands import NETWORK, contents, mmd_ddm, read, save_data, save_encoder, save_model

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.evaluation.metrics import kid
from mmd_ddm.features.bank import extract
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_data, build_sampler, load_model
from mmd_ddm.maths.random import SELECT
from mmd_ddm.runs.folder import read_events
from mmd_ddm.samplers.draw import draw

JUDGE, SELECTION = "encoder:judge.safetensors", "encoder:selection.safetensors"
FINETUNE = (
    "base", "--data", "digits.npy", "--steps", 3, "--iterations", 1, "--batch-size", 4,
    "--features", "pixels", "--set", f"judges={JUDGE}", "--set", f"select.features={SELECTION}",
    "--set", "select.samples=8", "--set", "judge_samples=8", "--set", "compare_steps=4",
)  # fmt: skip
PRETRAIN = ("--data", "digits.npy", "--iterations", 1, "--batch-size", 4, *NETWORK)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_data(folder, 60, ("judge", "selection"))
    for words in (
        ("pretrain", *PRETRAIN, "--out", "base"),
        ("finetune", *FINETUNE, "--out", "run"),
    ):
        done = mmd_ddm(folder, *words)
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(made, tmp_path / "copy")


def test_runs_hold(made):
    before = contents(made)
    for run, checks in {"base": 2, "run": 32}.items():
        done = mmd_ddm(made, "verify", run)
        assert done.code == 0, done.out + done.err
        assert done.out.rstrip().endswith(f"{checks} holds")
    assert contents(made) == before


def test_checkpoints_are_selected_by_images_of_their_own(made, monkeypatch):
    monkeypatch.chdir(made)  # where the encoders lie
    parts = build_data(FinetuneConfig(data="digits.npy"), (1, 8, 8))
    assert read(made / "run/run.json")["inputs"].items() >= parts.hashes.items()
    (event,) = (e for e in read_events(made / "run") if e["event"] == "eval" and e["step"] == 0)
    chain = build_sampler(ChainConfig(steps=3), load_model("base").denoiser)
    drawn, real = draw(chain, 8, seed=0, purpose=SELECT)[0], parts.selection.pixels
    phi = make_features(SELECTION, 1)
    expected = kid(extract(drawn, phi), extract(real, phi))
    assert [event["kid"], event["kid_se"]] == pytest.approx(expected, rel=1e-3)
    recorded = read(made / "run/results.json")["protocol"]["selection"]
    assert (recorded["space"], recorded["real"]) == (SELECTION, 4)


def spoil_weights(folder):
    path = folder / "run/model/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x10
    path.write_bytes(content)


def spoil_data(folder):
    pixels = np.load(folder / "digits.npy")
    np.save(folder / "digits.npy", 255 - pixels)


def spoil_score(folder):
    results = read(folder / "run/results.json")
    results["rows"][-1]["spaces"]["pixels"]["kid"] *= 0.99
    (folder / "run/results.json").write_text(json.dumps(results))


def spoil_base(folder):
    """A base made worse, and floors made perfect: what a run would be judged by."""
    results = read(folder / "run/results.json")
    for row in results["rows"][:-1]:
        for scores in row["spaces"].values():
            scores["kid"] *= 50
    for about in results["spaces"].values():
        about["floor"] = {"kid": 0.0, "kid_se": 1e-6, "fd": 0.0}
    (folder / "run/results.json").write_text(json.dumps(results))


def spoil_differences(folder):
    results = read(folder / "run/results.json")
    results["rows"][0]["above_finetuned"]["pixels"]["kid"] += 1
    results["speedup"]["beaten_steps"] = 50
    (folder / "run/results.json").write_text(json.dumps(results))


def spoil_rows(folder):
    results = read(folder / "run/results.json")
    del results["rows"][1]
    (folder / "run/results.json").write_text(json.dumps(results))


def spoil_verdict(folder):
    results = read(folder / "run/results.json")
    results["verdict"]["label"] = "boundless gain"
    (folder / "run/results.json").write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("spoil", "differing"),
    [
        (spoil_verdict, {"verdict"}),
        (spoil_weights, {"weights_sha256"}),
        (spoil_data, {"data_sha256", "heldout_sha256", "selection_sha256"}),
        (spoil_score, {"finetuned, 3 steps: pixels"}),
        (spoil_base, {"base, 3 steps: pixels", "base, 4 steps: pixels", "pixels floor"}),
        (spoil_differences, {"base, 3 steps: pixels, above finetuned", "speedup"}),
        (spoil_rows, {"base, 4 steps: pixels"}),
        (lambda folder: save_model(folder / "base"), {"model_sha256"}),
        (lambda folder: save_encoder(folder / "judge.safetensors", 7), {f"{JUDGE} weights"}),
    ],
)
def test_what_has_changed_is_named(spoil, differing, folder):
    spoil(folder)
    done = mmd_ddm(folder, "verify", "run")
    named = {
        line.split("  ")[0].strip() for line in done.out.splitlines() if "differs" in line[20:]
    }
    assert done.code == 1, done.out + done.err
    assert differing <= named


def forget_where(folder):
    """The record of a run whose command ran in a folder that is gone."""
    record = folder / "run" / "run.json"
    record.write_text(json.dumps({**read(record), "folder": "/no/longer/there"}))


def test_what_is_gone_is_unchecked_and_does_not_pass(folder):
    (folder / "digits.npy").unlink()
    shutil.rmtree(folder / "base")
    forget_where(folder)
    done = mmd_ddm(folder, "verify", "run")
    assert done.code == 1, done.out + done.err
    assert "no data at digits.npy" in done.out
    assert "unchecked" in done.out
    assert "differs" not in done.out


def test_runs_are_read_from_any_folder(made, tmp_path):
    """What they name relative to where their command ran is found there."""
    run = made / "run"
    done = mmd_ddm(tmp_path, "verify", run)
    assert done.code == 0, done.out + done.err
    assert done.out.rstrip().endswith("32 holds")
    words = ("-n", 4, "--metrics", "kid", "--out", "found.json")
    assert mmd_ddm(tmp_path, "evaluate", run, *words).code == 0
    roles = {
        name: about["role"] for name, about in read(tmp_path / "found.json")["spaces"].items()
    }
    assert roles == {"pixels": "optimised", SELECTION: "selection", JUDGE: "held-out"}
    assert mmd_ddm(tmp_path, "neighbors", run, "-n", 4, "-k", 1, "--out", "copies").code == 0


def test_what_cannot_be_verified_is_said(folder):
    assert mmd_ddm(folder, "sample", "run", "-n", 1, "--out", "drawn").code == 0
    (folder / "unfinished").mkdir()
    shutil.copy(folder / "run/run.json", folder / "unfinished")
    for run, said in (
        ("drawn", "is a run of sample"),
        ("unfinished", "is not finished: repeat its command"),
        ("nothing", "cannot read"),
    ):
        done = mmd_ddm(folder, "verify", run)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert said in done.err


# The run that goes on, and the one that does not


def test_other_data_are_refused_when_a_run_goes_on(folder):
    spoil_data(folder)
    done = mmd_ddm(folder, "finetune", *FINETUNE, "--out", "run")
    assert done.code == 2
    assert "began with other data or weights (data_sha256: " in done.err


def test_another_run_beside_it_if_told(folder):
    before = contents(folder / "run")
    words = ("finetune", *FINETUNE, "--out", "run", "--lr", 0.1)
    assert "--force-new-run" in mmd_ddm(folder, *words).err
    for _ in range(2):  # the same words find it again
        assert mmd_ddm(folder, *words, "--force-new-run").code == 0
    assert read(folder / "run-2/run.json")["settings"]["lr"] == 0.1
    assert not (folder / "run-3").exists()
    assert contents(folder / "run") == before


def test_a_full_disk_is_said_and_the_checkpoint_stays(folder):
    words = ("pretrain", *PRETRAIN, "--set", "iterations=2", "--out", "full")
    assert mmd_ddm(folder, *words, "--set", "save_every=1").code == 0
    (folder / "full/log.jsonl").unlink()
    before = (folder / "full/checkpoint.pt").read_bytes()
    (folder / "full/log.jsonl").symlink_to("/dev/full")
    done = mmd_ddm(folder, *words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "No space left on device" in done.err
    assert (folder / "full/checkpoint.pt").read_bytes() == before


# What would run code


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_no_file_of_a_person_is_unpickled(folder, tmp_path):
    """Weights as a pickle, a code file the model asks for, an encoder, an array, a checkpoint."""
    evil, ran = Evil(tmp_path / "ran"), tmp_path / "ran"
    unet = folder / "base/model/unet"
    next(unet.glob("*.safetensors")).unlink()
    torch.save(evil, unet / "diffusion_pytorch_model.bin")
    (unet / "evil.py").write_text(f"import os; os.mkdir({str(ran)!r})")
    index = read(folder / "base/model/model_index.json")
    index["unet"] = ["evil", "Evil"]
    (folder / "base/model/model_index.json").write_text(json.dumps(index))
    torch.save(evil, folder / "judge.safetensors")
    np.save(folder / "evil.npy", np.array([evil], dtype=object), allow_pickle=True)
    torch.save({"step": 0, "network": evil}, folder / "run/checkpoint.pt")
    for words in (
        ("sample", "base", "--out", "new"),
        ("evaluate", "run", "--data", "digits.npy", "--features", JUDGE, "--out", "new.json"),
        ("evaluate", "run", "--data", "evil.npy", "--features", "pixels", "--out", "new.json"),
        ("finetune", *FINETUNE, "--out", "run"),
    ):
        done = mmd_ddm(folder, *words)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert not ran.exists()


def test_a_latent_model_is_refused(folder):
    path = folder / "base/model/model_index.json"
    path.write_text(json.dumps({**read(path), "vqvae": ["diffusers", "VQModel"]}))
    done = mmd_ddm(folder, "sample", "base", "--out", "new")
    assert done.code == 2
    assert "is a latent diffusion model (vqvae beside its unet)" in done.err


def test_names_are_shown_as_they_are(folder):
    shutil.move(folder / "run", folder / "[red]run[")
    done = mmd_ddm(folder, "sample", "[red]run[", "-n", 1, "--out", "[bold]out[/x]")
    assert done.code == 0, done.err
    assert "saved [bold]out[/x]" in done.out
    assert "?[31m" in mmd_ddm(folder, "sample", "\x1b[31m", "--out", "new").err.replace(
        "\\x1b", "?"
    )


@pytest.mark.parametrize(
    "words",
    [
        "verify run",
        "evaluate run --data digits.npy -n 4 --metrics kid --out found.json",
        "neighbors run -n 4",
        "bench base --run run --data digits.npy --samplers ddim --steps 4 -n 4 --features pixels "
        "--out table",
        "finetune base --data digits.npy --config foreign.toml --out other",
    ],
)
def test_no_record_calls_code(words, folder, monkeypatch):
    """A foreign run, and a foreign config, name a module that leaves a trace when imported."""
    (folder / "trap.py").write_text("open('called', 'w')\n")
    monkeypatch.syspath_prepend(folder)
    record = read(folder / "run" / "run.json")
    record["settings"]["judges"] = ["import:trap:Net"]
    (folder / "run" / "run.json").write_text(json.dumps(record))
    (folder / "foreign.toml").write_text('judges = ["import:trap:Net"]\n')
    done = mmd_ddm(folder, *words.split())
    assert not (folder / "called").exists()
    assert "Traceback" not in done.err
    if not words.startswith("bench"):  # which judges in spaces of its own
        assert done.code in (1, 2)
        assert "import:trap:Net" in done.out + done.err
