"""An exported model of several numbers of steps: in diffusers, our very images at each of them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from commands import make_denoiser, mmd_ddm, pictures, read
from pipelines import call, load_pipeline

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.jobs.build import build_sampler, load_model, resolve_chains
from mmd_ddm.jobs.chain import choose_chain, describe_chain
from mmd_ddm.jobs.learned import chain_tables
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.models.export import export

BUDGETS = (2, 3, 5, 8)
TRUST = {"trust_remote_code": True}


def save(folder, chain=ChainConfig(steps=8), budgets=BUDGETS, prediction="epsilon"):  # noqa: B008
    """A model as a finetuning leaves it; its chain and its budgets."""
    denoiser = make_denoiser(prediction=prediction)
    chain, chains = resolve_chains(FinetuneConfig(chain=chain, budgets=budgets), denoiser)
    config = {"prediction_type": prediction, "clip_sample": False}
    tables = chain_tables(chains, denoiser)
    (table,) = (table for one, table in tables if one == asdict(chain))
    export(denoiser, config, asdict(chain), folder, table=table, budgets=tables)
    return chain, chains


@pytest.mark.parametrize("sampler", ["ddim", "unipc", "heun", "dpm-solver++-2m"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_same_images_at_each_number_of_steps_in_any_order(sampler, prediction, tmp_path):
    save(tmp_path / "model", ChainConfig(steps=8, sampler=sampler), prediction=prediction)
    pipeline = load_pipeline(tmp_path / "model", **TRUST)
    loaded = load_model(str(tmp_path / "model"))
    z = sample_noise(range(3), loaded.denoiser.shape)
    # Heun's x_0 comes from a mean of eps, whose rounding counts 1 / alpha times.
    near = 5e-5 if sampler == "heun" else 1e-5
    for steps in (8, 2, 5, 3, 8):
        _, theirs = call(pipeline, 3, steps)
        chain = choose_chain(loaded, {"steps": steps})
        with torch.no_grad():
            ours = build_sampler(chain, loaded.denoiser)(z[0])
        assert len(chain.times) == steps
        assert float((theirs - ours).abs().max() / ours.abs().max().clamp_min(1)) <= near


def test_same_files_as_the_command(tmp_path):
    save(tmp_path / "model", ChainConfig(steps=8, sampler="unipc"), prediction="v_prediction")
    pipeline, found = load_pipeline(tmp_path / "model", **TRUST), []
    for steps in (2, 5, None):
        words = () if steps is None else ("--steps", steps)
        done = mmd_ddm(tmp_path, "sample", "model", "-n", 4, "--out", f"{steps}", *words)
        assert done.code == 0, done.err
        assert "(what it was finetuned for)" in " ".join(done.out.split())
        images, _ = call(pipeline, 4, steps or 8)
        expected = np.stack([np.asarray(image.convert("L")) for image in images])
        assert (pictures(tmp_path / f"{steps}") == expected).all()
        found.append(expected)
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_any_other_number_is_refused_with_those_that_are_served(steps, tmp_path):
    save(tmp_path / "model")
    said = rf"for 2, 3, 5, 8 steps: pass num_inference_steps=2 or 3 or 5 or 8 \(got {steps}\)"
    with pytest.raises(ValueError, match=said):
        load_pipeline(tmp_path / "model", **TRUST)(num_inference_steps=steps)


@pytest.mark.parametrize("chain", [{"sampler": "ddpm-small"}, {"eta": 0.5}], ids=str)
def test_chains_with_noise_are_drawn_by_the_command_alone(chain, tmp_path):
    save(tmp_path / "model", ChainConfig(steps=8, **chain))
    with pytest.raises(ValueError, match="draw from it with `mmd-ddm sample`"):
        load_pipeline(tmp_path / "model", **TRUST)(num_inference_steps=3)
    done = mmd_ddm(tmp_path, "sample", "model", "--steps", 3, "-n", 1, "--out", "images")
    assert done.code == 0, done.err


def test_the_chains_come_back_also_from_diffusers_own_saving(tmp_path):
    chain, budgets = save(tmp_path / "model", ChainConfig(steps=5, sampler="unipc"))
    pipeline = load_pipeline(tmp_path / "model", **TRUST)
    pipeline.save_pretrained(tmp_path / "again")
    for folder in ("model", "again"):
        loaded = load_model(str(tmp_path / folder))
        assert (loaded.chain, loaded.budgets) == (chain, budgets)
    assert [one.spacing for one in budgets] == ["trailing", *["midpoint"] * 3]
    assert budgets[0].times == (999, 499)
    config = read(tmp_path / "model/scheduler/scheduler_config.json")
    assert [len(one["times"]) for one in config["budgets"]] == [*BUDGETS]
    assert config["times"] is None
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    assert index["scheduler"] == ["scheduling_few_step", "FewStepScheduler"]


def test_times_that_a_stock_scheduler_could_hold_are_refused_elsewhere_too(tmp_path):
    save(tmp_path / "model", ChainConfig(steps=5, spacing="leading"), budgets=(5, 10))
    with pytest.raises(ValueError, match="for 5, 10 steps"):
        load_pipeline(tmp_path / "model", **TRUST)(num_inference_steps=7)


@pytest.mark.parametrize(
    ("asked", "steps", "spacing", "known"),
    [
        ({}, 8, "midpoint", True),
        ({"steps": 2}, 2, "trailing", True),
        ({"steps": 3}, 3, "midpoint", True),
        ({"steps": 3, "spacing": "trailing"}, 3, "trailing", False),
        ({"steps": 4}, 4, "midpoint", False),
        ({"steps": 2, "sampler": "heun"}, 2, "trailing", False),
    ],
    ids=str,
)
def test_a_number_of_steps_chooses_its_own_times(asked, steps, spacing, known, tmp_path):
    save(tmp_path / "model")
    model = load_model(str(tmp_path / "model"))
    chain = choose_chain(model, asked)
    assert (len(chain.times), chain.spacing) == (steps, spacing)
    assert ("(what it was" in describe_chain(model, chain)) == known
