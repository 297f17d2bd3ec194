"""The benchmarks run on a tiny model, and their figures mean what they say."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch, tmp_path, tiny_unet, capsys):
    """``bench(name, *options)`` runs one on a tiny model; what it printed, and its JSON's row."""
    monkeypatch.syspath_prepend(str(FOLDER))
    DDPMPipeline(tiny_unet(), DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path / "model")
    capsys.readouterr()

    def run(name, *options):
        small = ("--features=pixels", "--batch-size=4", "--steps=3", "--bank=8", "--repeats=1")
        places = (f"--model={tmp_path / 'model'}", f"--out={tmp_path / 'out'}")
        monkeypatch.setattr(sys, "argv", [name, *small, *places, *options])
        importlib.import_module(name).main()
        written = sorted((tmp_path / "out").glob("*.json"))
        return capsys.readouterr().out, [json.loads(path.read_text()) for path in written]

    return run


def test_sampling_and_iteration_compare_with_their_base(bench):
    table, [sampling] = bench("sampling")
    assert sampling["rows"][0]["ratio"] == 1
    assert sampling["rows"][1]["what"] == "drawing"
    assert f"torch {torch.__version__}" in sampling["machine"]
    assert table.startswith("| what | seconds |")
    _, [iteration, _] = bench("iteration", "--precision=bfloat16")
    assert [row["precision"] for row in iteration["rows"]] == ["float32", "bfloat16"]
    assert len(iteration["rows"][1]["all"]) == 1


def test_the_bound_counts_recomputation(bench):
    """Forward and backward are three times a forward pass; a recomputation is one more."""
    _, [plain] = bench("bound", "--micro-batch=2")
    _, [recomputed] = bench("bound", "--micro-batch=2", "--keep=0")
    ratio = recomputed["rows"][0]["GFLOP"] / plain["rows"][0]["GFLOP"]
    assert 1.25 < ratio < 1.36
    assert recomputed["rows"][0]["ratio"] > 1


def test_a_point_of_memory(bench):
    printed, _ = bench("memory", "--point", "--micro-batch=2")
    row = json.loads(printed)
    assert (row["steps"], row["batch"]) == (3, 4)
    assert row["peak MiB"] > 100


@pytest.mark.parametrize("way", ["one backward", "two passes", "two passes, recomputed"])
def test_both_exact_ways_are_exact(bench, way):
    printed, _ = bench("two_passes", "--point", "--micro-batch=2", f"--way={way}")
    assert float(json.loads(printed)["gradient error"]) < 1e-6


def test_both_clamps_start_from_the_same_noise(bench, tmp_path):
    pixels = torch.randint(0, 256, (20, 8, 8), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "images.npy", pixels.byte().numpy())
    (tmp_path / "my.toml").write_text(f'data = "{tmp_path / "images.npy"}"')
    small = ("--iterations=1", "--samples=4", "--judge=pixels", f"--config={tmp_path / 'my.toml'}")
    _, [clamp] = bench("clamp", *small)
    rows = {row["trained with"]: row for row in clamp["rows"]}
    assert rows.keys() == {"none", "straight-through", "hard"}
    assert 0 < rows["none"]["saturated"] < 1
    assert 0 < rows["none"]["gradient off"] < 1 > rows["none"]["cosine"]
    less = rows["hard"]["KID"] - rows["straight-through"]["KID"]
    assert clamp["paired"]["hard minus straight-through"] == less != 0


def test_start_up_is_compared_with_another_tree(monkeypatch, tmp_path):
    """Against a package that does nothing; an interval lies about its median."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("__init__", "__main__"):
        path = tmp_path / "src" / "mmd_ddm" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    start_up = importlib.import_module("start_up")
    words = ["start_up", f"--against={tmp_path / 'src'}", "--repeats=1", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", words)
    start_up.main()
    rows = json.loads((tmp_path / "start_up.json").read_text())["rows"]
    assert [row["command"] for row in rows] == ["mmd-ddm --help", "import mmd_ddm"]
    assert rows[0]["ratio"] > 1.5
    assert start_up.interval([*range(20)]) == (5, 14)
    assert start_up.interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


@pytest.mark.slow
def test_an_iteration_is_compared_with_that_of_another_tree(bench):
    _, [trees] = bench("trees", f"--against={FOLDER.parent / 'src'}")
    [row] = trees["rows"]
    assert 0.2 < row["ratio"] < 5
    assert row["all"] == [pytest.approx(row["ours"] / row["theirs"], rel=1e-3)]


def test_the_papers_network_has_its_size(monkeypatch):
    """As google/ddpm-cifar10-32, which the benchmark does not need to download."""
    monkeypatch.syspath_prepend(str(FOLDER))
    work = importlib.import_module("work")
    settings = work.options("x").parse_args(
        ["--model=cifar10-shape", "--features=pixels", "--batch-size=2", "--bank=8"]
    )
    network = work.prepare(settings).sampler.denoiser.network
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


def test_what_is_killed_and_resumed_runs_and_is_seen_in_a_write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    tiny_run = importlib.import_module("tiny_run").tiny_run
    half_written = importlib.import_module("kill_and_resume").half_written
    seen = []
    weights = tiny_run(tmp_path / "whole", 3, save_every=1)
    save = torch.save

    def look(state, file):
        seen.append(half_written(tmp_path / "seen"))
        save(state, file)

    monkeypatch.setattr(torch, "save", look)
    assert tiny_run(tmp_path / "seen", 3, save_every=1) == weights
    assert seen == [True] * 4
    assert not half_written(tmp_path / "seen")


@pytest.mark.slow  # ours takes as many iterations as it always does
def test_time_to_quality_has_both_recipes_on_one_axis(bench, tmp_path):
    for seed, name in enumerate(("data", "heldout")):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 8, 8), dtype=np.uint8)
        np.save(tmp_path / f"{name}.npy", pixels)
    places = [f"--{name}={tmp_path / name}.npy" for name in ("data", "heldout")]
    small = ("--steps=5", "--iterations=4", "--marks=2", "--samples=6", "--judge=random")
    _, [found] = bench("time_to_quality", *places, *small)
    rows = [r for r in found["rows"] if r["recipe"] == "published"]
    assert [r["iteration"] for r in rows] == [0, 2, 4]
    assert [r["network calls"] for r in rows] == [0, 40, 80]
    assert 0 < rows[1]["seconds"] < rows[2]["seconds"]
    assert rows[0]["KID"] != rows[2]["KID"]
    [five] = found["summary"]
    assert (five["steps"], five["published, KID at the end"]) == (5, rows[2]["KID"])
    ours = [r["KID"] for r in found["rows"] if r["recipe"] == "ours"]
    assert five["ours, KID at the end"] == ours[-1]
    assert (tmp_path / "out/time_to_quality.png").stat().st_size > 5000
    # What is done is not done again; what is asked otherwise is not mixed with it.
    _, [again] = bench("time_to_quality", *places, *small)
    assert again["rows"] == found["rows"]
    with pytest.raises(SystemExit, match="measured with another judge"):
        bench("time_to_quality", *places, *small, "--judge=pixels")
