"""The recipes run, and say what their logs say."""

import gzip
import importlib.util
import json
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmd_ddm as mmd
from mmd_ddm.config import FinetuneConfig, PretrainConfig
from mmd_ddm.data.images import load_images
from mmd_ddm.features.registry import MultiLevel, make_features
from mmd_ddm.jobs.build import build_network
from mmd_ddm.jobs.recipe import complete
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.settings import from_mapping, load

RECIPES = Path(__file__).parents[1] / "recipes"


def script(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    return str(path)


@pytest.fixture
def labelled(tmp_path):
    """Grey 8 x 8 images of two classes, bright above and bright below."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 160).astype(np.uint8)
    images = rng.integers(0, 120, (160, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 130
    return idx(tmp_path / "images.gz", images), idx(tmp_path / "labels.gz", labels)


SHORT = ["--epochs", "6", "--batch-size", "16", "--held-out", "32", "--widths", "8", "16"]


def test_the_encoder_learns_and_is_read_back(labelled, tmp_path, capsys):
    images, labels = labelled
    out = tmp_path / "new" / "encoder.safetensors"
    script("train_encoder").main(
        ["--images", images, "--labels", labels, "--out", str(out), *SHORT]
    )
    rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40, 48]
    assert rows[-1]["held_out_accuracy"] > 0.9
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    phi = make_features(f"encoder:{out}", 1)
    assert phi.dim == 5 * (8 + 16)
    with torch.no_grad():
        features = phi(from_uint8(load_images(images).pixels))
    # Standardised by the images it was trained on, which are four fifths of these.
    assert features.mean(0).abs().max() < 0.2
    assert (features.std(0) - 1).abs().max() < 0.2


def test_folders_of_a_zip_are_its_classes(tmp_path):
    names = ["a/dog/1.png", "a/cat/1.png", "a/cat/0.png", "a/eel/0.png"]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.mkdir("a")
        for i, name in enumerate(names):
            content = BytesIO()
            Image.new("RGB", (4, 4), (40 * i, 0, 0)).save(content, "PNG")
            archive.writestr(name, content.getvalue())
    labels = script("train_encoder").read_labels(tmp_path / "z.zip", None)
    assert labels.tolist() == [0, 0, 1, 2]
    # In the order that the images are read: cat 0, cat 1, dog, eel.
    assert load_images(tmp_path / "z.zip").pixels[:, 0, 0, 0].tolist() == [80, 40, 0, 120]


def test_labels_of_another_set_are_refused(labelled, tmp_path):
    few = idx(tmp_path / "few.gz", np.zeros(3, np.uint8))
    with pytest.raises(SystemExit, match="3 labels for the 160 images"):
        script("train_encoder").main(["--images", labelled[0], "--labels", few, "--out", "x"])


@pytest.mark.parametrize("log", sorted(RECIPES.glob("*/*.jsonl")), ids=lambda p: str(p.parts[-2:]))
def test_every_log_has_its_picture(log, tmp_path):
    plot = script("plot_log")
    plot.main([str(log), "--out", str(tmp_path / "new" / "curve.png")])
    with (
        Image.open(tmp_path / "new" / "curve.png") as drawn,
        Image.open(log.with_suffix(".png")) as shipped,
    ):
        assert drawn.size == shipped.size
    assert f"]({log.stem}.png)" in (log.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "shape", "widths"),
    [("fashion-mnist", (1, 28, 28), (32, 64, 128)), ("cifar10", (3, 32, 32), (64, 128, 256))],
)
def test_readmes_say_what_was_run(name, shape, widths):
    text = (RECIPES / name / "README.md").read_text(encoding="utf-8")
    base, encoder = (
        [json.loads(line) for line in (RECIPES / name / f"{kind}.jsonl").read_text().splitlines()]
        for kind in ("base", "encoder")
    )
    config, last = load(PretrainConfig, RECIPES / name / "base.toml"), base[-1]
    network, phi = build_network(config.network, shape), MultiLevel(shape[0], widths)
    assert config.iterations == last["step"]
    assert config.batch_size * config.iterations == last["images"]
    for fact in (
        f"{config.iterations:,} iterations of {config.batch_size} images",
        f"({last['images'] / 1e6:.2f} million",
        f"{sum(p.numel() for p in network.parameters()):,} parameters",
        f": {last['seconds']:.0f} s |",
        f"| {last['loss']:.4f} (mean over the last {last['step'] - base[-2]['step']} iterations)",
        f"{config.warmup} iterations of warm-up",
        f"EMA {config.ema_decay}",
        f"{sum(p.numel() for p in phi.parameters()):,} parameters; d = {phi.dim:,}",
        f"| {100 * encoder[-1]['held_out_accuracy']:.1f} % on the 5,000",
        f": {encoder[-1]['seconds']:.0f} s |",
        f"{len(encoder)} epochs",
    ):
        assert fact in text, fact


class TestEveryK:
    """recipes/every-k: each K has a best training-free chain, and rows become a table."""

    def test_every_chain_and_every_job_can_be_built(self):
        run = script("every-k/run")
        model = mmd.load("fashion-mnist", "cpu")
        assert set(run.FREE) == set(run.ALL_K)
        for k in run.ALL_K:
            assert mmd.build_sampler(run.free_chain(k), model.denoiser).nfe == 0
            assert len(mmd.build_sampler(run.free_chain(k), model.denoiser).times) == k
        for own in run.METHODS.values():
            steps = max(own.get("budgets", [10]))
            settings = {**run.JOB, **own, "chain": {"steps": steps, **own.get("chain", {})}}
            config = from_mapping(FinetuneConfig, complete(settings))
            assert (config.recipe, config.chain.steps) == ("auto", steps)

    def rows(self):
        def kid(value, se):
            return {"judge": {"kid": value, "kid_se": se, "kid_se_drawn": 0.6 * se}}

        for seed, less in enumerate((-0.03, -0.05)):
            for method, at in (("free", 0.08), ("solver", 0.08 + less)):
                above = {} if method == "free" else kid(less, 0.005)
                yield {
                    "steps": 5, "nfe": 5, "method": method, "seed": seed, "samples": 99,
                    "spaces": kid(at, 0.01), "above_free": above,
                }  # fmt: skip

    def test_the_mean_over_seeds_has_the_larger_of_two_errors(self, tmp_path):
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, self.rows())))
        tables = script("every-k/tables")
        tables.main(["--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path)])
        text = (tmp_path / "every-k.md").read_text()
        # Free: the share of the real images whole, of those drawn half; solver: the scatter 10.
        assert "| 5 | 80 ± 9 | 40 ± 10 |" in text
        assert "| **\N{MINUS SIGN}40 ± 10** |" in text
        assert (tmp_path / "every-k.png").stat().st_size > 5000


class TestConditional:
    """recipes/conditional: every job can be built, and its rows become a table a base."""

    def test_every_job_can_be_built(self):
        run = script("conditional/run")
        for method in run.METHODS:
            base, settings = run.job(method)
            config = from_mapping(FinetuneConfig, {"model": base, "data": run.DATA, **settings})
            assert (config.chain.sampler, config.chain.steps) == ("unipc", 5)
            assert config.condition.bake_guidance == (config.chain.guidance != 1)

    def job(self, method, seed, told, gain):
        def row(name, steps, accuracy, **more):
            scores = {"kid": 0.1, "kid_se": 0.01, "accuracy": accuracy, "accuracy_se": 0.02}
            return {
                "name": name,
                "steps": steps,
                "nfe": steps,
                "spaces": {"judge": scores},
                **more,
            }

        above = {"judge": {"kid": 0.05, "kid_se": 0.03, "accuracy": -gain, "accuracy_se": 0.01}}
        rows = [row("base", 5, 0.6, above_finetuned=above), row("base", 20, 0.63)]
        floor = {"kid": -0.001, "kid_se": 0.001, "accuracy": 0.86, "accuracy_se": 0.01}
        return {
            "method": method, "seed": seed, "samples": 99, "base": "classes",
            "verdict": "real gain",
            "rows": [*rows, row("finetuned", 5, told)],
            "spaces": {"judge": {"role": "held-out", "floor": floor}},
        }  # fmt: skip

    def test_a_table_has_the_mean_over_seeds_and_the_paired_gain(self, tmp_path):
        jobs = [
            self.job("marginal", 0, 0.61, 0.01),
            self.job("joint", 0, 0.70, 0.10), self.job("joint", 1, 0.72, 0.12),
        ]  # fmt: skip
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, jobs)))
        tables = script("conditional/tables")
        tables.main(["--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path)])
        text = (tmp_path / "tables.md").read_text()
        assert text.count("base, 5 steps") == 1
        assert "| base, 20 steps | 20 | 100 ± 10 | 0.63 ± 0.02 |" in text
        assert "| marginal, 5 steps (1 of 2 seeds) | 5 | 100 ± 10 | 0.61 ± 0.02 |" in text
        assert "|  | 50 ± 30 | 0.010 ± 0.010 |" in text
        assert "| joint, 5 steps | 5 | 100 ± 10 | 0.71 ± 0.02 | real gain |" in text
        assert "| **0.110 ± 0.010** |" in text
        assert "| real images |  | \N{MINUS SIGN}1.0 ± 1.0 | 0.860 ± 0.010 |" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers and diffusers, of themselves
def test_latent_bases_are_made_and_finetuned_to_few_steps(tmp_path, monkeypatch):
    """recipes/latent: both load in diffusers, and are matched with classes and captions."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("data.npz", "heldout.npz"):
        images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        np.savez(name, images=images, labels=np.arange(40) % 2)
    short = ["--data", "data.npz", "--batch-size", "8", "--minutes", "0"]
    script("latent/bases").main([*short, "--out", "bases"])
    run = script("latent/run")
    monkeypatch.setitem(run.JOB, "compare_steps", [])
    monkeypatch.setitem(run.JOB, "judges", ["frequencies"])
    monkeypatch.setitem(run.JOB, "features", ["pixels"])
    monkeypatch.setitem(run.JOB, "select", {"samples": 4})
    run.main(
        ["--bases", "bases", "--data", "data.npz", "--heldout", "heldout.npz", "--out", "runs",
         "--seeds", "1", "--iterations", "1", "-n", "8"]
    )  # fmt: skip
    for method in ("dit", "text"):
        rows = json.loads((tmp_path / f"runs/{method}-0/results.json").read_text())["rows"]
        assert all("accuracy" in row["spaces"]["frequencies"] for row in rows)
        guided = json.loads((tmp_path / f"runs/{method}-0-guided.json").read_text())["guided"]
        assert [record["rows"][0]["nfe"] for record in guided] == [4, 20]
    assert (tmp_path / "runs/text-0/pytorch_lora_weights.safetensors").is_file()
    assert (tmp_path / "runs/text-0/prompts.png").is_file()
    assert (tmp_path / "runs/dit-0/classes.png").is_file()
