"""More iterations for a finished run, more images in a folder: gone on with, and said."""

from pathlib import Path

import pytest
import torch
from commands import JUDGE, NETWORK, contents, mmd_ddm, read, save_model
from safetensors.torch import load_file

from mmd_ddm.config import HeadConfig
from mmd_ddm.jobs import sample as sample_job
from mmd_ddm.jobs import train as train_job
from mmd_ddm.jobs.genie_head import distil_head
from mmd_ddm.runs.folder import read_events

SHORT = (
    "base", "--data", "digits.npy", "--steps", 3, "--batch-size", 4, "--lr", 1e-3,
    "--features", "pixels", "--set", f"judges={JUDGE}", "--set", "select.every=1",
    "--set", "select.samples=8", "--set", "judge_samples=8", "--set", "compare_steps=[]",
)  # fmt: skip
STRETCHED = "instead of 1: goes on from the checkpoint; the learning rate followed a cosine over 1"


def finetune(folder, iterations, out, *words, keep=True):
    words = (*words, *["--keep-checkpoint"] * keep)
    command = ("finetune", *SHORT, *words, "--iterations", iterations, "--out", out)
    done = mmd_ddm(folder, *command)
    assert done.code == 0, done.err
    return " ".join(done.out.split())


def weights(folder, run):
    return load_file(folder / run / "model/unet/diffusion_pytorch_model.safetensors")


@pytest.mark.slow
def test_a_longer_finetuning_is_that_of_one_command(workplace):
    said = [finetune(workplace, n, "run") for n in (1, 3)]
    assert "3 iterations instead of 1: goes on from the checkpoint" in said[1]
    assert "cosine" not in said[1]
    finetune(workplace, 3, "once")
    torch.testing.assert_close(*(weights(workplace, r) for r in ("run", "once")), rtol=0, atol=0)
    steps = [e["step"] for e in read_events(workplace / "run") if e["event"] == "train"]
    assert steps == [1, 2, 3]
    record = read(workplace / "run/run.json")
    assert record["settings"]["iterations"] == 3
    assert record["command"][-4:] == ["--iterations", "3", "--out", "run"]  # resumes it
    assert mmd_ddm(workplace, *record["command"][1:]).code == 0
    assert (workplace / "run/checkpoint.pt").is_file()
    done = mmd_ddm(workplace, "finetune", *SHORT, "--iterations", 2, "--out", "run")
    assert done.code == 2
    assert "other settings (iterations: 3 -> 2)" in done.err
    for _ in range(2):
        finetune(workplace, 4, "run", "--force-new-run")
    assert read(workplace / "run-2/run.json")["settings"]["iterations"] == 4
    assert not (workplace / "run-3").exists()


def test_a_stretched_cosine_is_said_and_recorded(workplace):
    words = ("--set", "cosine=true", "--set", "select.every=0")
    finetune(workplace, 1, "run", *words)
    assert "cosine_stretched_from" not in read(workplace / "run/results.json")["protocol"]
    said = finetune(workplace, 3, "run", *words)
    assert STRETCHED in said
    assert "not those of one run of 3" in said
    assert read(workplace / "run/results.json")["protocol"]["cosine_stretched_from"] == [1]
    assert "cosine_stretched_from" in (workplace / "run/report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["all", "all+sampler", "lora"])
def test_a_finished_run_is_read_and_not_trained_again(trained, workplace, monkeypatch):
    words = ("--set", f"trained={trained}", "--set", "select.every=0")
    finetune(workplace, 2, "run", *words, keep=False)
    assert not [*Path("run").glob("checkpoint*")]
    before, results = weights(workplace, "run"), read(workplace / "run/results.json")
    monkeypatch.setattr(train_job, "finetune", None)  # whoever trains, fails
    said = finetune(workplace, 2, "run", *words, keep=False)
    assert "finished before: run/model is that of iteration 2" in said
    assert all(torch.equal(before[key], found) for key, found in weights(workplace, "run").items())
    assert read(workplace / "run/results.json") == results
    assert mmd_ddm(workplace, "verify", "run").code == 0
    done = mmd_ddm(workplace, "finetune", *SHORT, *words, "--iterations", 3, "--out", "run")
    assert done.code == 2
    assert "run is finished after 2 iterations, and its checkpoint is gone" in done.err
    assert read(workplace / "run/run.json")["settings"]["iterations"] == 2


def test_a_run_that_stopped_early_says_so_again(workplace):
    words = ("--set", "select.patience=1", "--lr", 0)
    assert "stopped at iteration 1" in finetune(workplace, 3, "run", *words)
    assert "stopped at iteration 1" in finetune(workplace, 5, "run", *words)


def test_longer_pretraining_and_distillation(workplace):
    words = ("pretrain", "--data", "digits.npy", "--batch-size", 4, *NETWORK, "--out", "own")
    for iterations in (1, 3):
        done = mmd_ddm(workplace, *words, "--iterations", iterations)
        assert done.code == 0, done.err
        distil_head("base", HeadConfig(data="digits.npy", iterations=iterations, batch_size=2))
    assert STRETCHED in " ".join(done.out.split())
    for run in ("own", "base/genie-head"):
        events = read_events(workplace / run)
        (longer,) = [event for event in events if event["event"] == "longer"]
        assert (longer["before"], longer["iterations"], longer["cosine"]) == (1, 3, True)
        assert [event["step"] for event in events if event["event"] == "train"] == [1, 3]


def draw(folder, n, out, *words, model="base"):
    words = (model, "--steps", 3, "-n", n, "--out", out, "--batch-size", 2, *words)
    return mmd_ddm(folder, "sample", *words)


@pytest.mark.parametrize("words", [(), ("--start-from", "digits.npy", "--sampler", "ddpm-small")])
def test_more_samples_are_those_of_one_command(words, workplace, monkeypatch):
    drawn = []
    draw_images = sample_job.draw

    def note(walk, n, *, seed=0, **options):
        drawn.append((seed, n))
        return draw_images(walk, n, seed=seed, **options)

    monkeypatch.setattr(sample_job, "draw", note)
    assert draw(workplace, 5, "more", *words).code == 0
    first = contents(workplace / "more")
    drawn.clear()
    assert draw(workplace, 7, "more", *words).code == 0
    assert drawn == [(4, 2), (6, 1)]  # 00004.png was half of a batch
    assert draw(workplace, 7, "once", *words).code == 0
    more, once = (contents(workplace / out) for out in ("more", "once"))
    assert more.keys() == once.keys()
    assert all(more[name] == once[name] for name in more if name != "run.json")
    assert all(more[f"0000{i}.png"] == first[f"0000{i}.png"] for i in range(4))


@pytest.mark.parametrize("lost", ["grid.png", "00001.png"])
def test_what_was_not_finished_is_drawn_again(lost, workplace):
    assert draw(workplace, 4, "more").code == 0
    (workplace / "more/00000.png").write_bytes(b"half")
    (workplace / "more" / lost).unlink()
    assert draw(workplace, 6, "more").code == 0
    assert draw(workplace, 6, "once").code == 0
    for i in range(6):
        images = [(workplace / out / f"0000{i}.png").read_bytes() for out in ("more", "once")]
        assert images[0] == images[1]


def test_no_samples_of_another_model_are_added(workplace):
    assert draw(workplace, 2, "more").code == 0
    before = contents(workplace / "more")
    save_model(workplace / "base", prediction="sample")
    done = draw(workplace, 4, "more")
    assert done.code == 2
    assert "more began with other data or weights (model_sha256: " in done.err
    save_model(workplace / "other", prediction="sample")
    done = draw(workplace, 4, "more", model="other")
    assert "other data or weights (model: 'base' -> 'other'; model_sha256: " in done.err
    assert contents(workplace / "more") == before
    assert draw(workplace, 1, "more").code == 2


@pytest.mark.slow
def test_more_pairs_neighbours_and_rows(workplace):
    finetune(workplace, 1, "run")
    bench = ("base", "--data", "digits.npy", "--samplers", "ddim", "--features", JUDGE)
    for n in (2, 4):
        for words in (
            ("interpolate", "run", "-n", n, "--frames", 2),
            ("neighbors", "run", "-n", n),
            ("bench", *bench, "--steps", 1 + n, "-n", 2 * n, "--out", "bench"),
        ):
            done = mmd_ddm(workplace, *words)
            assert done.code == 0, done.err
    assert read(workplace / "bench/bench.json")["protocol"]["samples"] == 8
    assert read(workplace / "run/neighbors/neighbors.json")["n"] == 4
    assert mmd_ddm(workplace, "neighbors", "run", "-n", 2).code == 2
    assert Path("run/interpolation/interpolation.png").is_file()
