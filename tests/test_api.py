"""The package as a library: live pipelines, things of one's own, silence, errors of one line."""

import subprocess
import sys

import pytest
import torch
from commands import Counting, make_denoiser
from diffusers import DDPMPipeline, DDPMScheduler

import mmd_ddm as mmd
from mmd_ddm.evaluation.metrics.registry import METRICS
from mmd_ddm.features.registry import FEATURES
from mmd_ddm.report.results import results_table
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.registry import SAMPLERS

SMALL = {
    "iterations": 2, "batch_size": 4, "judge_samples": 8, "select": {"samples": 4},
    "compare_steps": [], "judges": ["random"],
}  # fmt: skip


def finetune(base, out="run", **options):
    photos = mmd.images("digits.npy").split()
    spaces = {"features": ["pixels"], "select": {"samples": 4, "features": "encoder"}}
    return mmd.finetune(base, photos, mmd.Chain(3), out=out, **{**SMALL, **spaces, **options})


def test_a_live_pipeline_is_finetuned_and_stays_as_it_is(workplace, capsys):
    pipeline = DDPMPipeline(make_denoiser().network, DDPMScheduler())
    before = weights_sha256(pipeline.unet)
    base = mmd.load(pipeline)
    result = finetune(base)
    assert weights_sha256(pipeline.unet) == weights_sha256(base.denoiser.network) == before
    # Two small steps may be judged worse than none, and then none is kept.
    moved = weights_sha256(result.model.denoiser.network) != before
    assert moved == (result.best_iteration > 0)
    assert result.model.chain.steps == 3
    assert [row["name"] for row in result.rows] == ["base", "finetuned"]
    assert capsys.readouterr() == ("", "")  # nothing is printed
    again = finetune(mmd.load(pipeline))  # the same call finds it done
    assert again.record == result.record
    other = DDPMPipeline(make_denoiser(prediction="sample").network, DDPMScheduler(beta_end=0.03))
    with torch.no_grad():
        next(other.unet.parameters()).mul_(1.1)
    with pytest.raises(ValueError, match="run began with other data or weights"):
        finetune(mmd.load(other))


def test_settings_are_checked_as_on_the_command_line(workplace):
    for wrong, said in (
        ({"iteration": 3}, "unknown setting iteration; did you mean iterations"),
        ({"select": {"evry": 3}}, r"unknown setting select.evry; did you mean select.every"),
        ({"lr": "fast"}, "lr takes float; got 'fast'"),
        ({"judges": ["pixels"]}, "pixels cannot be held-out as well as optimised"),
    ):
        with pytest.raises(ValueError, match=said):
            finetune("base", **wrong)
    assert not (workplace / "run").exists()
    with pytest.raises(ValueError, match=r"setting chain\.step; did you mean chain\.steps"):
        mmd.sample("base", "images", {"step": 3})
    assert not (workplace / "images").exists()
    assert mmd.sample("base", "images", {"steps": 3}, n=1).record["chain"]["steps"] == 3


def test_a_sampler_of_ones_own_is_drawn_with_and_told_from_others(workplace):
    class Halved(DDIM):
        """DDIM, and half of it."""

        def step(self, *inputs):
            return super().step(*inputs) / 2

    mmd.register_sampler("halved", Halved)
    try:
        photos = mmd.images("digits.npy", (1, 8, 8))
        options = {"n": 4, "features": ["pixels"], "progress": Counting()}
        found = mmd.compare("base", photos, samplers=["ddim", "halved"], steps=[3], **options)
        assert options["progress"].drawn == 8
        assert len({row["spaces"]["pixels"]["kid"] for row in found.rows}) == 2
        with pytest.raises(ValueError, match="there is a sampler 'halved' already"):
            mmd.register_sampler("halved", Halved)
    finally:
        del SAMPLERS["halved"]


def test_a_feature_space_of_ones_own_is_optimised_in(workplace):
    class Rows(mmd.FeatureExtractor):
        """The mean of every row."""

        def __init__(self, channels):
            super().__init__()
            self.name = "rows"

        def forward(self, images):
            return images.mean((1, 3))

    mmd.register_features("rows", Rows)
    try:
        result = finetune("base", features=["rows"])
        assert result.record["spaces"]["rows"]["role"] == "optimised"
        assert result.record["spaces"]["rows"]["dim"] == 8
        for taken in ("rows", "encoder", "mine:x", "mine+uint8"):
            with pytest.raises(ValueError, match="choose another name"):
                mmd.register_features(taken, Rows)
    finally:
        del FEATURES["rows"]


def test_a_metric_of_ones_own_stands_in_the_tables(workplace):
    mmd.register_metric("gap", lambda x, y: float((x.mean(0) - y.mean(0)).norm()))
    try:
        photos = mmd.images("digits.npy", (1, 8, 8))
        options = {"features": ["pixels"], "metrics": ["kid", "gap"], "n": 4}
        found = mmd.evaluate("base", photos, mmd.Chain(3), seeds=2, **options)
        assert found.rows[0]["spaces"]["pixels"].keys() == {"kid", "kid_se", "gap", "gap_se"}
        lines = results_table(found.record).lines
        assert [line[2] for line in lines] == ["KID x1000", "GAP"]
    finally:
        del METRICS["gap"]


def test_results_are_loaded_again_and_gone_on_from(workplace):
    result = finetune("base")
    found = mmd.interpolate("run", n=1, frames=2)
    assert "1 pairs of noises, 2 images each, in 3 ddim steps" in found.record["sentence"]
    mmd.sample(result.model, workplace / "images", n=2)
    assert len(list((workplace / "images").glob("0*.png"))) == 2
    assert {check.verdict for check in mmd.verify(workplace / "run")} == {"holds"}
    assert mmd.load("run").chain == result.chain


def test_importing_costs_nothing_and_the_report_can_be_called_before_and_after():
    code = (
        "import sys, mmd_ddm as mmd\n"
        "assert not {'torch', 'rich', 'diffusers'} & set(sys.modules)\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        mmd.report([], 'x.html')\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        "    import mmd_ddm.report\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.count("no run folders given") == 2, done.stderr
