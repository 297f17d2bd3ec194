"""The whole of the main job through the command line, on 8 x 8 digits and a tiny network."""

import re
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import (
    CACHE,
    NETWORK,
    interrupted_after,
    mmd_ddm,
    pictures,
    read,
    save_data,
    save_model,
)
from PIL import Image
from run_folders import PageReader
from safetensors.torch import load_file

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.evaluation.metrics import frechet_distance, kid
from mmd_ddm.features.bank import extract
from mmd_ddm.features.registry import FEATURES, make_features
from mmd_ddm.jobs.build import build_data, build_sampler, load_model
from mmd_ddm.jobs.evaluate import DEFAULT_SPACES
from mmd_ddm.maths import random
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.report import verdict
from mmd_ddm.runs.folder import RunLog
from mmd_ddm.samplers.draw import draw
from mmd_ddm.settings import from_mapping

WEIGHTS = "model/unet/diffusion_pytorch_model.safetensors"
JUDGE, SELECTION = "encoder:judge.safetensors", "encoder:selection.safetensors"
PRETRAIN = ("--data", "digits.npy", "--iterations", 40, "--batch-size", 16, *NETWORK)
FINETUNE = (
    "base", "--data", "digits.npy", "--steps", 3, "--iterations", 2, "--batch-size", 8,
    "--lr", 1e-3, "--features", "pixels", "--set", f"judges={JUDGE}",
    "--set", f"select.features={SELECTION}", "--set", "select.every=1",
    "--set", "select.samples=16", "--set", "judge_samples=16", "--set", "compare_steps=4,6",
    "--set", "save_every=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """digits.npy; base, pretrained for 40 iterations; run, finetuned from it for 2."""
    folder = tmp_path_factory.mktemp("place")
    save_data(folder, 100, ("judge", "selection"))
    results = SimpleNamespace(folder=folder)
    results.pretrained = mmd_ddm(folder, "pretrain", *PRETRAIN, "--out", "base")
    results.finetuned = mmd_ddm(folder, "finetune", *FINETUNE, "--out", "run")
    return results


@pytest.fixture
def folder(place):
    return place.folder


def events(run, kind):
    return [event for event in RunLog(run, *_identity(run)).events() if event["event"] == kind]


def _identity(run):
    record = read(run / "run.json")
    return record["verb"], record["settings"], record["inputs"]


def weights(run):
    return load_file(run / WEIGHTS)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class TestPretrain:
    def test_ends_well(self, place):
        assert place.pretrained.code == 0, place.pretrained.err
        assert place.pretrained.err == ""
        assert "100 images of 8x8" in place.pretrained.out

    def test_lowers_the_loss(self, folder):
        losses = [event["loss"] for event in events(folder / "base", "train")]
        assert len(losses) == 2
        assert losses[1] < 0.95 * losses[0]

    def test_resumes_where_it_stopped(self, folder):
        words = ("pretrain", *PRETRAIN, "--set", "save_every=10", "--out", "again")
        with interrupted_after(33):
            done = mmd_ddm(folder, *words)
        assert done.code == 130
        command = shlex.join(["mmd-ddm", *map(str, words)])
        assert done.err.splitlines() == [
            "mmd-ddm: stopping after this iteration; again to stop at once",
            f"mmd-ddm: interrupted; to go on, repeat: {command}",
        ]
        assert not (folder / "again" / "model").exists()
        assert mmd_ddm(folder, *words).code == 0
        assert same(weights(folder / "again"), weights(folder / "base"))


class TestFinetune:
    def test_ends_well_and_says_so(self, place):
        assert place.finetuned.code == 0, place.finetuned.err
        assert place.finetuned.err == ""
        said = " ".join(place.finetuned.out.split())
        assert "72 images to match, 8 to select by, 20 held out" in said
        assert re.search(r"kept iteration [012]: KID .* ± ", place.finetuned.out)
        assert "saved run" in place.finetuned.out

    def test_leaves_all_that_a_reader_needs(self, folder):
        names = {path.name for path in (folder / "run").iterdir()}
        assert names == {
            "run.json", "log.jsonl", "model", "results.json", "pairs.png",
            "report.html",
            "before.png", "after.png", "trackers",
        }  # fmt: skip
        assert (folder / "run" / "model" / "README.md").is_file()
        assert (folder / "base" / "model" / "README.md").is_file()
        record = read(folder / "run" / "run.json")
        assert record["verb"] == "finetune"
        assert record["command"][:3] == ["mmd-ddm", "finetune", "base"]
        assert record["settings"]["chain"]["steps"] == 3

    def test_logs_every_iteration_and_evaluation(self, folder):
        train, evaluations = (events(folder / "run", kind) for kind in ("train", "eval"))
        assert [event["step"] for event in train] == [1, 2]
        assert all(np.isfinite([e["loss"], e["grad_norm"]]).all() for e in train)
        assert [event["step"] for event in evaluations] == [0, 1, 2]
        assert {event["space"] for event in evaluations} == {SELECTION}
        best = [event["kid"] for event in evaluations if event["best"]]
        assert best == sorted(best, reverse=True)
        for event in evaluations:
            low, high = event["kid_ci95"]
            assert low + high == pytest.approx(2 * event["kid"])
            assert high - low == pytest.approx(2 * 1.96 * event["kid_se"])

    def test_keeps_the_best_iteration(self, folder):
        evaluations = events(folder / "run", "eval")
        kept = min(evaluations, key=lambda event: event["kid"])["step"]
        assert read(folder / "run" / "results.json")["protocol"]["kept_iteration"] == kept
        changed = not same(
            weights(folder / "run"),
            {k: v.float() for k, v in weights(folder / "base").items()},
        )
        assert changed == (kept > 0)

    def test_judges_base_and_finetuned_alike(self, folder):
        results = read(folder / "run" / "results.json")
        rows = results["rows"]
        assert [(row["name"], row["steps"]) for row in rows] == [
            ("base", 3), ("base", 4), ("base", 6), ("finetuned", 3),
        ]  # fmt: skip
        assert rows[0]["times"] == rows[3]["times"] == [833, 500, 166]
        roles = {name: space["role"] for name, space in results["spaces"].items()}
        assert roles["pixels"] == "optimised"
        assert roles[JUDGE] == "held-out"
        for row in rows:
            assert row["spaces"].keys() == roles.keys()
        assert results["speedup"]["searched"] == [3, 4, 6]

    def test_one_verdict_stands_everywhere(self, place, folder):
        results = read(folder / "run" / "results.json")
        judged = results["verdict"]
        assert judged == verdict(results).record()
        assert judged["spaces"].keys() == results["spaces"].keys()
        texts = [place.finetuned.out, (folder / "run" / "model" / "README.md").read_text()]
        texts += [PageReader(folder / "run" / "report.html").text]
        for text in texts:
            plain = " ".join(text.replace("\\", "").split())
            assert judged["sentence"] in plain
            assert judged["rule"] in plain

    def test_the_model_knows_its_chain(self, folder):
        chain = load_model(str(folder / "run")).chain
        assert (chain.steps, chain.times, chain.sampler) == (3, (833, 500, 166), "ddim")

    def test_the_same_command_again_trains_nothing(self, folder):
        before = weights(folder / "run")
        assert mmd_ddm(folder, "finetune", *FINETUNE, "--out", "run").code == 0
        assert len(events(folder / "run", "train")) == 2
        assert same(weights(folder / "run"), before)

    def test_resumes_where_it_stopped(self, folder):
        words = ("finetune", *FINETUNE, "--out", "again-finetuned")
        with interrupted_after(1):
            assert mmd_ddm(folder, *words).code == 130
        assert mmd_ddm(folder, *words).code == 0
        again = folder / "again-finetuned"
        assert [event["step"] for event in events(again, "train")] == [1, 2]
        for key in ("loss", "grad_norm"):
            once = [event[key] for event in events(folder / "run", "train")]
            assert [event[key] for event in events(again, "train")] == once
        assert same(weights(again), weights(folder / "run"))

    def test_refuses_other_settings_in_the_same_folder(self, folder):
        before = {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()}
        done = mmd_ddm(folder, "finetune", *FINETUNE, "--out", "run", "--lr", 1e-4)
        assert done.code == 2
        assert "lr: 0.001 -> 0.0001" in done.err
        assert "give a new folder, or repeat the old settings" in done.err
        assert before == {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()}

    def test_dry_run_prints_the_settings_and_writes_nothing(self, folder):
        done = mmd_ddm(
            folder, "finetune", "it's a \\ model", "--data", 'a "b"', "--out", "dry",
            "--times", "900,10.5", "--dry-run",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert '"times": [' in done.out
        assert "10.5" in done.out
        assert "it's a \\\\ model" in done.out
        assert not (folder / "dry").exists()


class TestSample:
    def test_draws_with_the_chain_it_was_finetuned_for(self, folder):
        done = mmd_ddm(folder, "sample", "run", "-n", 5, "--out", "five")
        assert done.code == 0, done.err
        assert "3 ddim steps at 833, 500, 166 (what it was finetuned for)" in done.out
        names = sorted(p.name for p in (folder / "five").iterdir())
        assert names == [*(f"0000{i}.png" for i in range(5)), "grid.png", "run.json"]
        loaded = load_model(str(folder / "run"))
        with torch.no_grad():
            x = build_sampler(loaded.chain, loaded.denoiser)(sample_noise(range(5), (1, 8, 8))[0])
        expected = ((x.clamp(-1, 1) + 1) * 127.5).round().byte()[:, 0].numpy()
        assert (pictures(folder / "five") == expected).all()
        assert read(folder / "five" / "run.json")["settings"]["chain"]["times"] == [833, 500, 166]

    def test_image_i_depends_on_its_own_seed_alone(self, folder):
        for out, words in {"a": ("-n", 7, "--batch-size", 3), "b": ("-n", 4, "--seed", 3)}.items():
            assert mmd_ddm(folder, "sample", "run", "--out", out, *words).code == 0
        a, b = (pictures(folder / out).astype(int) for out in "ab")
        assert len(a) == 7
        # Other batch sizes may round the last bit differently.
        assert abs(a[3:] - b).max() <= 1
        assert abs(a[0] - b[0]).max() > 1

    def test_the_grid_shows_them_in_order(self, folder):
        assert mmd_ddm(folder, "sample", "run", "-n", 5, "--out", "tiles").code == 0
        sheet = np.asarray(Image.open(folder / "tiles" / "grid.png"))
        assert sheet.shape == (2 * 9 + 1, 3 * 9 + 1)
        for i, picture in enumerate(pictures(folder / "tiles")):
            top, left = 1 + 9 * (i // 3), 1 + 9 * (i % 3)
            assert (sheet[top : top + 8, left : left + 8] == picture).all()

    def test_the_same_command_again_draws_the_same(self, folder):
        words = ("sample", "run", "-n", 2, "--out", "twice")
        first = (mmd_ddm(folder, *words), pictures(folder / "twice"))
        (folder / "twice" / "00001.png").unlink()
        assert mmd_ddm(folder, *words).code == first[0].code == 0
        assert (pictures(folder / "twice") == first[1]).all()
        done = mmd_ddm(folder, *words[:2], "-n", 1, "--out", "twice")
        assert (done.code, "other settings (n: 2 -> 1)" in done.err) == (2, True)
        assert (pictures(folder / "twice") == first[1]).all()

    @pytest.mark.parametrize(
        ("model", "words", "said"),
        [
            ("run", ("--steps", 4), "4 ddim steps at 875, 625, 375, 125 (not what it was fine"),
            ("run", ("--steps", 3), "3 ddim steps at 833, 500, 166 (what it was finetuned for)"),
            ("base", (), "5 ddim steps at 900, 700, 500, 300, 100 (a base model"),
            ("base", ("--times", "900,10.5"), "2 ddim steps at 900, 10.5 (a base model"),
            ("base", ("--steps", 20), "20 ddim steps at 975, 925, 875, ..., 75, 25 (a base"),
            ("base", ("--sampler", "ddpm-small", "--steps", 3), "3 ddpm-small steps at 833, 500"),
            ("base/model", ("--spacing", "trailing", "--clip"), "999, 799, 599, 399, 199"),
        ],
    )
    def test_says_which_chain_it_used(self, model, words, said, folder, tmp_path):
        done = mmd_ddm(folder, "sample", model, "-n", 1, "--out", tmp_path / "o", *words)
        assert done.code == 0, done.err
        assert said in done.out
        assert read(tmp_path / "o" / "run.json")["settings"]["chain"]["clip"] == (
            "--clip" in words
        )


def evaluate(folder, model, out, *words):
    return mmd_ddm(folder, "evaluate", model, "--data", "digits.npy", "--out", out, *words)


class TestEvaluate:
    def test_measures_the_images_that_the_chain_draws(self, folder, monkeypatch):
        monkeypatch.chdir(folder)  # where the encoders lie
        done = evaluate(folder, "run", "ev.json", "-n", 12, "--seed", 4)
        assert done.code == 0, done.err
        results = read(folder / "ev.json")
        (row,) = results["rows"]
        assert (row["name"], row["steps"], row["nfe"]) == ("finetuned", 3, 3)
        model = load_model("run")
        walk = build_sampler(model.chain, model.denoiser)
        drawn, _ = draw(walk, 12, seed=4, purpose=random.JUDGE)
        config = from_mapping(FinetuneConfig, read(folder / "run" / "run.json")["settings"])
        real = build_data(config, (1, 8, 8)).heldout.pixels
        for name, scores in row["spaces"].items():
            phi = make_features(name, 1)
            x, y = extract(drawn, phi), extract(real, phi)
            assert scores["fd"] == pytest.approx(frechet_distance(x, y), rel=1e-3)
            assert [scores["kid"], scores["kid_se"]] == pytest.approx(kid(x, y), rel=1e-3)
        for said in ("finetuned", "pixels", JUDGE, "optimised", "saved ev.json"):
            assert said in done.out

    def test_the_run_says_which_spaces_and_roles(self, folder):
        for model in ("run", "run/model"):
            assert evaluate(folder, model, "roles.json", "-n", 4).code == 0
            spaces = read(folder / "roles.json")["spaces"]
            assert {name: space["role"] for name, space in spaces.items()} == {
                "pixels": "optimised", SELECTION: "selection", JUDGE: "held-out",
            }  # fmt: skip

    def test_states_its_protocol_and_floor(self, folder):
        words = ("-n", 6, "--features", "pixels")
        assert evaluate(folder, "run", "protocol.json", *words).code == 0
        results = read(folder / "protocol.json")
        assert "speedup" not in results
        protocol = results["protocol"]
        assert (protocol["data"], protocol["real"], protocol["samples"], protocol["seed"]) == (
            "digits.npy", 20, 6, 0,
        )  # fmt: skip
        assert protocol["seen_dropped"] == 80
        assert protocol["rounding"] == "uint8"
        assert protocol["floor"] == "two random halves of the real images, 10 and 10"
        space = results["spaces"]["pixels"]
        assert space["dim"] == 49
        assert len(space["sha256"]) == 64
        # Halves of one set: a small distance, but not none, and KID is around 0.
        assert 0 < space["floor"]["fd"] < 0.5 * results["rows"][0]["spaces"]["pixels"]["fd"]
        assert abs(space["floor"]["kid"]) < 5 * space["floor"]["kid_se"]

    def test_compares_several_numbers_of_steps(self, folder):
        words = ("-n", 4, "--features", "pixels", "--steps", 3, "--steps", 5)
        done = evaluate(folder, "base", "several.json", *words)
        assert done.code == 0, done.err
        results = read(folder / "several.json")
        assert [(row["name"], row["times"]) for row in results["rows"]] == [
            ("base", [833, 500, 166]), ("base", [900, 700, 500, 300, 100]),
        ]  # fmt: skip
        assert results["spaces"]["pixels"]["role"] == "held-out"

    def test_of_a_copied_model_nobody_knows_the_roles(self, folder, tmp_path):
        shutil.copytree(folder / "run" / "model", tmp_path / "copy")
        words = ("-n", 4, "--features", "pixels")
        assert evaluate(folder, tmp_path / "copy", tmp_path / "o.json", *words).code == 0
        assert read(tmp_path / "o.json")["spaces"]["pixels"]["role"] == "unknown"

    def test_replaces_what_it_wrote_and_nothing_else(self, folder):
        words = ("-n", 4, "--features", "pixels")
        for seed in (0, 1):
            assert evaluate(folder, "run", "seed.json", *words, "--seed", seed).code == 0
            assert read(folder / "seed.json")["protocol"]["seed"] == seed
        for out in ("run/results.json", "run/run.json", "digits.npy"):
            before = (folder / out).read_bytes()
            done = evaluate(folder, "run", out, *words)
            assert done.code == 2
            assert f"{out} " in done.err
            assert "give another name" in done.err
            assert (folder / out).read_bytes() == before

    def test_default_spaces_exist(self):
        assert set(DEFAULT_SPACES) <= set(FEATURES)


class TestReport:
    def test_covers_several_runs(self, folder):
        shutil.copytree(folder / "run", folder / "run-b")
        done = mmd_ddm(folder, "report", "run", "run-b", "--out", "report.html")
        assert done.code == 0, done.err
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert ">run<" in page
        assert ">run-b<" in page
        assert mmd_ddm(folder, "report", "run", "--out", "report.html").code == 0
        assert ">run-b<" not in (folder / "report.html").read_text(encoding="utf-8")

    def test_leaves_other_files_alone(self, folder):
        before = (folder / "digits.npy").read_bytes()
        done = mmd_ddm(folder, "report", "run", "--out", "digits.npy")
        assert done.code == 2
        assert "a report ends in .html, .md, .tex, .csv; got digits.npy" in done.err
        assert (folder / "digits.npy").read_bytes() == before


def test_banks_are_cached_where_told(folder):
    names = [path.name for path in (folder / CACHE / "features").glob("*.npy")]
    assert {name.rsplit("-", 1)[0] for name in names} == {"pixels", "encoder"}


def test_sampling_a_stochastic_chain_repeats(tmp_path):
    save_model(tmp_path / "model", ChainConfig(steps=3, eta=0.7))
    for out in "ab":
        assert mmd_ddm(tmp_path, "sample", "model", "-n", 3, "--out", out).code == 0
    assert (pictures(tmp_path / "a") == pictures(tmp_path / "b")).all()
