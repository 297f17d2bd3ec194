"""A class-conditional model from its training to plain diffusers, and how it is judged."""

import json

import numpy as np
import pytest
import torch
from commands import NETWORK, digits, mmd_ddm, pictures, save_encoder
from diffusers import ConsistencyModelPipeline, UNet2DModel
from pipelines import load_pipeline
from sklearn.datasets import load_digits

import mmd_ddm as mmd
from mmd_ddm.config import FinetuneConfig, NetworkConfig
from mmd_ddm.jobs.build import build_network, load_model
from mmd_ddm.jobs.verify import verify
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.export import export
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.report.results import classes_table, results_table
from mmd_ddm.settings import comments

SMALL = {
    "iterations": 2, "batch_size": 8, "judge_samples": 16, "compare_steps": [4], "lr": 1e-3,
    "select": {"samples": 8, "features": "random", "every": 1}, "features": ["pixels"],
    "judges": ["encoder:judge.safetensors"], "micro_batch": 3,
}  # fmt: skip


def save_base(folder, classes=5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = NetworkConfig((8, 16), (False, True), attention_head_dim=8, norm_num_groups=4)
        network = build_network(config, (1, 8, 8), classes).eval()
        torch.nn.init.normal_(network.class_embedding.weight, std=3.0)
    denoiser = UNet2D(network, NoiseSchedule.linear(), shape=(1, 8, 8))
    denoiser.classes, denoiser.null_label = tuple(map(str, range(classes))), classes
    export(denoiser, {"clip_sample": False}, None, folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder: 120 digits of the classes 0 to 4, and a model of these classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    labels = load_digits().target[:400]
    few = np.flatnonzero(labels < 5)[:120]
    np.savez(tmp_path / "digits.npz", images=digits(400)[few], labels=labels[few])
    np.savez(tmp_path / "plain.npz", images=digits(120))
    np.savez(tmp_path / "ten.npz", images=digits(120), labels=labels[:120])
    save_encoder(tmp_path / "judge.safetensors", 0)
    save_base(tmp_path / "base")
    return tmp_path


def finetune(steps=4, chain=None, **settings):
    return mmd.finetune(
        "base", "digits.npz", chain or {"steps": steps}, out="run", **{**SMALL, **settings}
    )


def counted(pipeline):
    calls = []
    pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    return calls


def drawn_by_diffusers(folder, labels, steps, **options):
    """Image i from seed i, uint8, and the network calls."""
    pipeline = load_pipeline(folder, **options)
    calls = counted(pipeline)
    images = pipeline(
        batch_size=len(labels), class_labels=labels, num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(i) for i in range(len(labels))],
        output_type="np",
    ).images  # fmt: skip
    return pipeline, (images * 255).round()[..., 0], len(calls)


@pytest.mark.parametrize("sampler", ["ddim", "unipc"])
def test_plain_diffusers_draws_the_same_pixels_in_as_many_calls(place, sampler):
    result = finetune(4, {"steps": 4, "sampler": sampler})
    mmd.sample("run", "drawn", n=6, labels=[3, 1], batch_size=6)
    ours = pictures(place / "drawn").astype(float)
    options = {"trust_remote_code": True} if sampler == "unipc" else {}
    pipeline, theirs, calls = drawn_by_diffusers("run/model", [3, 1] * 3, 4, **options)
    assert type(pipeline) is ConsistencyModelPipeline
    assert type(pipeline.unet) is UNet2DModel
    assert calls == 4
    assert np.abs(ours - theirs).max() <= 1
    _, others, _ = drawn_by_diffusers("run/model", [2, 0] * 3, 4, **options)
    assert np.abs(others - theirs).max() > 1
    again = load_model("run").denoiser
    assert (again.classes, again.null_label) == (tuple("01234"), 5)
    assert result.sampler.draw(5, seed=0).shape == (5, 1, 8, 8)


def test_a_run_is_judged_by_its_classes(place):
    result = finetune()
    record = result.record
    assert record["protocol"]["classes"] == list("01234")
    for row in record["rows"]:
        for space, scores in row["spaces"].items():
            assert {"kid", "class_kid", "class_kid_se", "accuracy", "accuracy_se"} <= {*scores}
            assert sum(one["images"] for one in row["classes"][space]) == 16
    assert all("class_kid" in about["floor"] for about in record["spaces"].values())
    less = record["rows"][0]["above_finetuned"]["pixels"]
    assert {"kid", "class_kid", "accuracy", "accuracy_se"} <= less.keys()
    assert "class KID, the mean over classes" in result.verdict.rule
    assert "class KID x1000" in results_table(record).groups
    by_class = classes_table(record)
    assert [line[0] for line in by_class.lines] == list("01234")
    assert (place / "run" / "classes.png").is_file()
    assert "<h3>By class</h3>" in (place / "run" / "report.html").read_text()
    assert all(check.verdict == "holds" for check in verify("run"))
    assert json.loads((place / "run" / "run.json").read_text())["inputs"]["data_labels_sha256"]


def test_guidance_is_two_calls_a_step_and_no_stock_call_draws_it(place):
    result = finetune(3, {"steps": 3, "guidance": 2.0})
    rows = {(row["name"], row["steps"], row["guidance"]): row["nfe"] for row in result.rows}
    assert rows == {
        ("base", 3, 2.0): 6, ("base", 4, 2.0): 8, ("base", 6, 1.0): 6, ("finetuned", 3, 2.0): 6,
    }  # fmt: skip
    assert load_model("run").chain.guidance == 2
    with pytest.raises(ValueError, match="guided ddim, which this scheduler cannot repeat"):
        drawn_by_diffusers("run/model", [1], 3, trust_remote_code=True)


def test_baked_guidance_is_one_call_and_compared_at_equal_calls(place):
    settings = {"condition": {"bake_guidance": True}, "compare_steps": []}
    result = finetune(4, {"steps": 4, "guidance": 2.0}, **settings)
    rows = {(row["name"], row["steps"], row["guidance"]): row["nfe"] for row in result.rows}
    assert rows == {
        ("base", 4, 1.0): 4, ("base", 2, 2.0): 4, ("base", 4, 2.0): 8, ("finetuned", 4, 1.0): 4,
    }  # fmt: skip
    assert load_model("run").chain.guidance == 1
    drawn_by_diffusers("run/model", [1], 4)


@pytest.mark.parametrize("match", ["class", "ignore"])
def test_other_ways_to_match(place, match):
    assert finetune(3, condition={"match": match}).rows


def test_a_base_is_trained_with_labels_and_one_that_means_none(place):
    done = mmd_ddm(
        place, "pretrain", "--data", "digits.npz", "--labels", *NETWORK, "--iterations", 2,
        "--batch-size", 4, "--tracker", "none", "--out", "own",
    )  # fmt: skip
    assert (done.code, "5 classes of digits.npz: 0, 1, 2, 3, 4" in done.out) == (0, True), done
    model = load_model("own").denoiser
    assert (model.classes, model.null_label) == (tuple("01234"), 5)
    assert model.network.config.num_class_embeds == 6
    found = mmd.evaluate("own", "digits.npz", {"steps": 3}, features=["pixels"], n=16)
    assert "accuracy" in found.rows[0]["spaces"]["pixels"]
    done = mmd_ddm(place, "sample", "own", "--label", "3,1", "-n", 4, "--steps", 3, "--out", "d")
    assert done.code == 0, done
    assert len(pictures(place / "d")) == 4


def test_what_cannot_be_is_one_line(place):
    for words, said in (
        (("finetune", "base", "--data", "plain.npz", "--steps", 3), "plain.npz holds no labels"),
        (
            ("finetune", "base", "--data", "ten.npz", "--steps", 3),
            "ten.npz has class 9 (9), and base has 5 classes, 0 to 4",
        ),
        (("sample", "base", "--label", "7"), "base has no class 7: its 5 classes are 0 to 4"),
        (("sample", "base", "--label", "cat"), "--label takes whole numbers"),
        (("sample", "fashion-mnist", "--label", "1"), "fashion-mnist is unconditional"),
        (("sample", "fashion-mnist", "--guidance", "2"), "a label that means no class"),
        (("evaluate", "base", "--data", "plain.npz"), "plain.npz holds no labels"),
        (("pretrain", "--data", "plain.npz", "--labels"), "plain.npz holds no labels"),
    ):
        done = mmd_ddm(place, *words, "--out", "out.json")
        assert done.code == 2
        line = done.err.strip()
        assert said in line
        assert "\n" not in line


def test_a_label_that_means_none_can_be_named(place):
    save_base(place / "base", classes=6)
    scheduler = place / "base" / "scheduler" / "scheduler_config.json"
    content = json.loads(scheduler.read_text())
    del content["_mmd_ddm_classes"]
    scheduler.write_text(json.dumps(content))
    assert load_model("base").denoiser.classes == tuple("0123456")
    chain = {"steps": 3, "guidance": 2.0}
    with pytest.raises(ValueError, match=r"condition\.null_label"):
        finetune(3, chain)
    finetune(3, chain, condition={"null_label": 6})
    found = load_model("run").denoiser
    assert (found.classes, found.null_label) == (tuple("012345"), 6)


def test_every_setting_of_classes_has_its_help():
    about = comments(FinetuneConfig)
    assert all(about[f"condition.{name}"] for name in ("match", "mix", "each", "bake_guidance"))
