"""One run for several numbers of steps: its times, its results, and the verbs that use it."""

import json
from dataclasses import replace

import pytest
import torch
from commands import SMALL, contents, make_denoiser, mmd_ddm, read, save_place
from diffusers import DiffusionPipeline

import mmd_ddm as mmd
from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.jobs.build import resolve_chain, resolve_chains
from mmd_ddm.jobs.results import load_result
from mmd_ddm.maths.times import select_times
from mmd_ddm.runs.folder import read_events

RUN = (
    "finetune", "base", "--data", "digits.npy", *SMALL, "--steps", "2,3,5", "--iterations", 4,
    "--sampler", "unipc", "--set", "select.every=2", "--set", "select.samples=12", "--set",
    "judge_samples=12", "--set", "compare_steps=5,6", "--lr", 1e-3, "--out", "run",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_place(folder, 60)
    done = mmd_ddm(folder, *RUN)
    assert done.code == 0, done.err
    return folder, " ".join(done.out.split())


# Times


@pytest.mark.parametrize("spacing", ["midpoint", "leading", "log-snr-open"])
def test_each_number_of_steps_has_its_own_times_which_begin_at_noise(spacing):
    denoiser = make_denoiser()
    config = FinetuneConfig(chain=ChainConfig(5, "unipc", spacing), budgets=(1, 2, 3, 5, 8))
    chain, chains = resolve_chains(config, denoiser)
    assert chain == chains[3]
    trailing = {"midpoint": {1, 2}, "leading": {1, 2, 3}, "log-snr-open": set()}[spacing]
    for one, k in zip(chains, config.budgets, strict=True):
        own = "trailing" if k in trailing else spacing
        assert one.spacing == own
        assert one.times == select_times(own, k, 1000, denoiser.schedule)
        assert replace(one, times=(), spacing=spacing) == replace(
            config.chain, steps=k, clip=one.clip
        )


def test_one_number_of_steps_is_the_chain_and_falls_back_on_no_others():
    denoiser = make_denoiser()
    config = FinetuneConfig(chain=ChainConfig(3))
    assert resolve_chains(config, denoiser) == (resolve_chain(config.chain, denoiser), ())
    with pytest.raises(ValueError, match="starts at t = 750"):
        resolve_chains(FinetuneConfig(chain=ChainConfig(2)), denoiser)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (ChainConfig(5, spacing="nonsense"), "unknown spacing 'nonsense'"),
        (ChainConfig(1001), "steps must be from 1 to T = 1000; got 1001"),
    ],
)
def test_what_no_chain_can_walk_is_refused(chain, words):
    config = FinetuneConfig(chain=chain, budgets=(3, chain.steps))
    with pytest.raises(ValueError, match=words):
        resolve_chains(config, make_denoiser())


# The run


def test_how_k_is_drawn_and_which_times_are_others_is_said(made):
    folder, said = made
    words = (
        "one an iteration, drawn in proportion to the steps; 2 steps are trailing: midpoint would "
        "begin too far from noise"
    )
    assert f"finetuning base to 2, 3 and 5 unipc steps, {words}, on cpu" in said
    assert read(folder / "run/results.json")["protocol"]["budgets"] == words


def test_results_have_base_and_finetuned_at_each_from_the_same_noise(made):
    folder, _ = made
    results = read(folder / "run/results.json")
    rows = [(row["name"], row["steps"], row["spacing"]) for row in results["rows"]]
    chains = [(5, "midpoint"), (2, "trailing"), (3, "midpoint")]
    assert rows == [
        *(("base", *chain) for chain in chains), ("base", 6, "midpoint"),
        *(("finetuned", *chain) for chain in chains),
    ]  # fmt: skip
    base, tuned = (
        {row["steps"]: row for row in results["rows"] if row["name"] == name}
        for name in ("base", "finetuned")
    )
    for k, fewer in ((2, None), (3, 2), (5, 3)):
        assert base[k]["times"] == tuned[k]["times"]
        for space, scores in tuned[k]["spaces"].items():
            gain = base[k]["above_finetuned"][space]
            assert gain["kid"] == pytest.approx(base[k]["spaces"][space]["kid"] - scores["kid"])
            assert 0 < gain["kid_se"] < scores["kid_se"]  # paired
            if fewer:
                higher = tuned[k]["above_fewer_steps"][space]
                assert higher["kid"] == pytest.approx(
                    scores["kid"] - tuned[fewer]["spaces"][space]["kid"]
                )
    assert tuned[2]["above_fewer_steps"] == {}
    assert results["speedup"]["searched"] == [2, 3, 5, 6]
    judge = "encoder:judge.safetensors"
    assert {name for name in results["verdict"]["spaces"] if judge in name} == {
        f"{judge} at {k} steps" for k in (2, 3, 5)
    }


def test_every_evaluation_has_the_kid_of_each(made):
    folder, _ = made
    found = [event for event in read_events(folder / "run") if event["event"] == "eval"]
    assert [event["step"] for event in found] == [0, 2, 4]
    assert found[0]["kid"] == pytest.approx(1)
    first = found[0]["kids"]
    assert [*first] == ["2", "3", "5"]
    for event in found:
        ratios = [event["kids"][k] / first[k] for k in first]
        assert event["kid"] == pytest.approx(max(ratios), rel=1e-6)
        assert event["space"] == "random, the worst of 2, 3, 5 steps relative to the base"


@pytest.mark.slow
def test_a_resumed_command_ends_at_the_same_bits(made, tmp_path):
    """A run of 2 iterations that is given 4 is that of 4."""
    folder, _ = made
    save_place(tmp_path, 60)
    for n in (2, 4):
        done = mmd_ddm(tmp_path, *RUN, "--iterations", n, "--keep-checkpoint")
        assert done.code == 0, done.err
    ours, theirs = (
        read_events(where / "run")[-1]["weights_sha256"] for where in (folder, tmp_path)
    )
    assert ours == theirs


def test_it_holds_when_it_is_verified(made):
    folder, _ = made
    before = contents(folder)
    done = mmd_ddm(folder, "verify", "run")
    assert done.code == 0, done.out + done.err
    assert "differs" not in done.out
    for row in ("finetuned, 2 steps: pixels", "base, 3 steps: random, above finetuned",
                "finetuned, 5 steps: pixels, above fewer steps"):  # fmt: skip
        assert row in done.out
    assert contents(folder) == before


def test_other_budgets_are_another_run(made):
    folder, _ = made
    done = mmd_ddm(folder, *RUN, "--steps", "2,5")
    assert done.code == 2
    assert "budgets: [2, 3, 5] -> [2, 5]" in " ".join(done.err.split())


# The verbs that use it


def test_sample_and_evaluate_walk_the_times_of_the_number_they_are_given(made):
    folder, _ = made
    for words, times in ((("--steps", 2), "2 unipc steps at 999, 499"),
                         ((), "5 unipc steps at 900, 700, 500, 300, 100")):  # fmt: skip
        done = mmd_ddm(folder, "sample", "run", *words, "-n", 1, "--out", f"s{len(words)}")
        assert f"1 images in {times} (what it was finetuned for)" in " ".join(done.out.split())
    words = ("evaluate", "run", "--steps", 2, "--steps", 4, "-n", 4, "--out", "e.json")
    done = mmd_ddm(folder, *words, "--metrics", "kid")
    assert done.code == 0, done.err
    found = [(row["times"], row["spacing"]) for row in read(folder / "e.json")["rows"]]
    assert found == [([999, 499], "trailing"), ([875, 625, 375, 125], "midpoint")]


@pytest.mark.parametrize(("steps", "rows"), [("2,3,4", [2, 3]), ("4", [5])])
def test_bench_has_a_row_for_each_that_is_asked_for(steps, rows, made):
    folder, _ = made
    words = ("--samplers", "ddim", "--spacing", "trailing", "-n", 4, "--features", "pixels")
    done = mmd_ddm(
        folder, "bench", "base", "--run", "run", "--steps", steps, *words, "--out", f"b{steps}"
    )
    assert done.code == 0, done.err
    found = read(folder / f"b{steps}/bench.json")["rows"]
    assert [row["steps"] for row in found if row["name"] == "finetuned"] == rows


def test_the_pipeline_of_the_result_is_that_of_the_folder(made, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    result = load_result("run", torch.device("cpu"))
    assert len(result.chain.times) == 5
    held, loaded = (
        one.scheduler.config
        for one in (
            result.pipeline(),
            DiffusionPipeline.from_pretrained("run/model", trust_remote_code=True),
        )
    )
    assert held["budgets"] == loaded["budgets"]
    assert json.loads(json.dumps(held["_mmd_ddm"])) == loaded["_mmd_ddm"]


def test_in_python_the_chain_has_the_most_steps_unless_it_is_given(made, monkeypatch, tmp_path):
    folder, _ = made
    monkeypatch.chdir(folder)
    options = {
        "features": ["pixels"], "judges": ["encoder:judge.safetensors"], "iterations": 1,
        "batch_size": 4, "judge_samples": 4, "select": {"every": 0}, "compare_steps": [],
    }  # fmt: skip
    result = mmd.finetune("base", "digits.npy", budgets=[3, 4], out=tmp_path / "a", **options)
    assert [len(one.times) for one in (result.chain, *result.model.budgets)] == [4, 3, 4]
    chain = mmd.Chain(steps=3, sampler="unipc")
    result = mmd.finetune(
        "base", "digits.npy", chain, budgets=[3, 4], out=tmp_path / "b", **options
    )
    assert len(result.sampler.times) == 3
    with pytest.raises(ValueError, match=r"chain.steps = 5 is not among the budgets 3, 4"):
        mmd.finetune("base", "digits.npy", mmd.Chain(), budgets=[3, 4], out=tmp_path / "c")
