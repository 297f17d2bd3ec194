"""An exported folder in diffusers' hands draws the very images that this package draws."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from commands import forge_gamma, forge_head, make_denoiser, mmd_ddm, pictures, save_model
from diffusers import DDIMScheduler
from pipelines import call, load_pipeline

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import build_sampler, load_model, resolve_chain
from mmd_ddm.maths.random import sample_noise
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.export import export
from mmd_ddm.models.lora import adapt, merge

CUSTOM = (990.0, 612.5, 250.0, 31.0)
STOCK = [
    ChainConfig(steps=5, spacing="leading"), ChainConfig(steps=7, spacing="leading"),
    ChainConfig(steps=1, spacing="trailing"), ChainConfig(steps=5), ChainConfig(steps=10),
    ChainConfig(steps=5, spacing="trailing")
]  # fmt: skip
SHIPPED = [
    ChainConfig(steps=5, spacing="quadratic-code"),
    ChainConfig(steps=5, spacing="quadratic-formula"),
    ChainConfig(steps=7, spacing="trailing"),  # 7 does not divide 1000
    ChainConfig(steps=3),
    ChainConfig(steps=15),
    ChainConfig(times=CUSTOM),
    ChainConfig(times=(900, 600, 300)),  # no stride
    ChainConfig(times=(900, 567, 234.5)),
]


def largest_difference(folder, steps, n=3):
    """Between diffusers' and ours, relative to the largest value (or to 1)."""
    trust = {"trust_remote_code": True}
    _, theirs = call(load_pipeline(folder, **trust), n, steps, output_type="np")
    loaded = load_model(str(folder))
    z = sample_noise(range(n), loaded.denoiser.shape)
    with torch.no_grad():
        ours = build_sampler(loaded.chain, loaded.denoiser)(z[0])
    return float((theirs - ours).abs().max() / ours.abs().max().clamp_min(1))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("chain", [STOCK[0], SHIPPED[0]], ids=lambda c: c.spacing)
def test_same_images_as_the_sampler(chain, prediction, clip, tmp_path):
    save_model(tmp_path / "model", replace(chain, clip=clip), prediction=prediction)
    assert largest_difference(tmp_path / "model", 5) <= 1e-5


@pytest.mark.parametrize("chain", [*STOCK[1:], *SHIPPED[1:]], ids=lambda c: c.spacing)
def test_same_images_at_other_times(chain, tmp_path):
    save_model(tmp_path / "model", chain)
    steps = len(chain.times) or chain.steps
    assert largest_difference(tmp_path / "model", steps) <= 1e-5


@pytest.mark.parametrize("sampler", ["unipc", "heun", "f-pndm"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_same_images_of_other_solvers(sampler, prediction, tmp_path):
    chain = ChainConfig(steps=5, sampler=sampler)
    save_model(tmp_path / "model", chain, prediction=prediction)
    assert largest_difference(tmp_path / "model", 5) <= 1e-5


def test_same_images_of_the_bundled_model(tmp_path):
    base = load_model("fashion-mnist")
    for spacing in ("leading", "midpoint", "quadratic-code"):
        chain = resolve_chain(ChainConfig(steps=5, spacing=spacing), base.denoiser)
        export(base.denoiser, base.scheduler_config, asdict(chain), tmp_path / spacing)
        assert largest_difference(tmp_path / spacing, 5) <= 1e-5


@pytest.mark.parametrize("chain", [STOCK[0], SHIPPED[0], SHIPPED[5]], ids=lambda c: c.spacing)
def test_same_files_as_the_command(chain, tmp_path):
    save_model(tmp_path / "model", chain, prediction="v_prediction")
    done = mmd_ddm(tmp_path, "sample", "model", "-n", 6, "--out", "images")
    assert done.code == 0, done.err
    steps = len(chain.times) or chain.steps
    images, _ = call(load_pipeline(tmp_path / "model", trust_remote_code=True), 6, steps)
    expected = np.stack([np.asarray(image.convert("L")) for image in images])
    assert (pictures(tmp_path / "images") == expected).all()
    assert expected.std() > 10


@pytest.mark.parametrize("chain", STOCK, ids=lambda c: f"{c.spacing}{c.steps}")
def test_times_a_stride_apart_need_nothing_but_diffusers(chain, tmp_path):
    save_model(tmp_path / "model", chain)
    pipeline = load_pipeline(tmp_path / "model")
    assert type(pipeline.scheduler) is DDIMScheduler
    pipeline.scheduler.set_timesteps(chain.steps)
    expected = resolve_chain(chain, make_denoiser()).times
    assert tuple(pipeline.scheduler.timesteps.tolist()) == expected
    assert not list((tmp_path / "model").rglob("*.py"))


class TestShippedScheduler:
    @pytest.mark.parametrize("chain", SHIPPED, ids=lambda c: f"{c.spacing}{c.steps}")
    def test_is_named_and_shipped_with_its_times(self, chain, tmp_path):
        save_model(tmp_path / "model", chain)
        scheduler = load_pipeline(tmp_path / "model", trust_remote_code=True).scheduler
        expected = resolve_chain(chain, make_denoiser())
        scheduler.set_timesteps(expected.steps)
        assert tuple(scheduler.timesteps.tolist()) == expected.times
        index = json.loads((tmp_path / "model" / "model_index.json").read_text())
        assert index["scheduler"] == ["scheduling_few_step", "FewStepScheduler"]
        assert (tmp_path / "model" / "scheduler" / "scheduling_few_step.py").is_file()

    def test_is_not_run_unasked(self, tmp_path):
        save_model(tmp_path / "model", SHIPPED[0])
        with pytest.raises(ValueError, match="trust_remote_code"):
            load_pipeline(tmp_path / "model")

    @pytest.mark.parametrize("steps", [4, 6, 50])
    def test_refuses_another_number_of_steps(self, steps, tmp_path):
        save_model(tmp_path / "model", SHIPPED[0])
        pipeline = load_pipeline(tmp_path / "model", trust_remote_code=True)
        with pytest.raises(ValueError, match=rf"for 5 steps.*\(got {steps}\)"):
            pipeline(num_inference_steps=steps)

    @pytest.mark.parametrize(
        ("chain", "name"),
        [
            (ChainConfig(sampler="dpm-solver++-2m", clip=True), r"dpm-solver\+\+-2m"),
            (ChainConfig(sampler="ddpm-small"), "ddpm-small"),
            (ChainConfig(eta=0.5), "stochastic ddim"),
        ],
        ids=lambda c: getattr(c, "sampler", ""),
    )
    def test_refuses_to_walk_another_chain_than_ddim(self, chain, name, tmp_path):
        save_model(tmp_path / "model", chain)
        pipeline = load_pipeline(tmp_path / "model", trust_remote_code=True)
        with pytest.raises(ValueError, match=f"{name}.*draw from it with `mmd-ddm sample`"):
            pipeline(num_inference_steps=5)


class TestChain:
    @pytest.mark.parametrize(
        "chain",
        [
            STOCK[0],
            SHIPPED[0],
            SHIPPED[5],
            ChainConfig(sampler="ddpm-small", clip=True),
            ChainConfig(eta=0.5, spacing="trailing"),
        ],
        ids=lambda c: f"{c.sampler}-{c.spacing}",
    )
    def test_comes_back(self, chain, tmp_path):
        save_model(tmp_path / "model", chain)
        resolved = resolve_chain(chain, make_denoiser())
        assert load_model(str(tmp_path / "model")).chain == resolved

    def test_survives_diffusers_own_saving(self, tmp_path):
        save_model(tmp_path / "model", STOCK[0])
        load_pipeline(tmp_path / "model").save_pretrained(tmp_path / "again")
        chain = resolve_chain(STOCK[0], make_denoiser())
        assert load_model(str(tmp_path / "again")).chain == chain

    def test_a_base_model_has_none(self, tmp_path):
        save_model(tmp_path / "model")
        assert load_model(str(tmp_path / "model")).chain is None
        assert type(load_pipeline(tmp_path / "model").scheduler) is DDIMScheduler


BETAS = [1e-4 + 2e-5 * t for t in range(1000)]


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 50), ("linspace", 5)])
@pytest.mark.parametrize(
    "training",
    [
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},  # which DDIMScheduler does not know
        {"trained_betas": BETAS},
        {"rescale_betas_zero_snr": True},
    ],
    ids=lambda c: c.get("beta_schedule") or next(iter(c)),
)
def test_the_schedule_of_the_training_is_kept(training, spacing, steps, tmp_path):
    config = {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, **training}
    # With settings of the base that this package's chains do not have.
    config |= {"prediction_type": "v_prediction", "clip_sample_range": 3.0, "steps_offset": 1}
    schedule = NoiseSchedule.from_config(config)
    denoiser = make_denoiser(prediction="v_prediction", schedule=schedule)
    chain = resolve_chain(ChainConfig(steps=steps, spacing=spacing, clip=True), denoiser)
    export(denoiser, config, asdict(chain), tmp_path / "model")
    loaded = load_model(str(tmp_path / "model")).denoiser.schedule
    assert torch.allclose(loaded.alpha_bar, schedule.alpha_bar, rtol=1e-6, atol=0)
    assert largest_difference(tmp_path / "model", steps) <= 1e-5


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
def test_whoever_reads_the_config_reads_the_weights(tmp_path):
    before = os.umask(0o027)
    try:
        denoiser = save_model(tmp_path / "model")
        merge(adapt(denoiser.network, "lora"), tmp_path / "adapter")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".safetensors", ".json"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_an_old_folder_is_replaced_whole(tmp_path):
    save_model(tmp_path / "model", SHIPPED[0])
    save_model(tmp_path / "model", STOCK[0])
    assert not list((tmp_path / "model").rglob("*.py"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_was_estimated_of_the_same_weights_stays(tmp_path):
    save_model(tmp_path / "base")
    forge_gamma(tmp_path)
    forge_head(tmp_path)
    estimates = [
        tmp_path / "base" / name for name in ("gamma.json", "genie-head/head.safetensors")
    ]
    before = [path.read_bytes() for path in estimates]
    save_model(tmp_path / "base")
    assert [path.read_bytes() for path in estimates] == before


def test_half_precision_files_hold_the_same_network(tmp_path):
    denoiser = make_denoiser()
    for half in (False, True):
        export(denoiser, {}, None, tmp_path / str(half), half=half)
    sizes = [
        sum(p.stat().st_size for p in (tmp_path / str(half)).rglob("*.safetensors"))
        for half in (False, True)
    ]
    assert sizes[1] < 0.6 * sizes[0]
    assert next(denoiser.network.parameters()).dtype == torch.float32
    full, rounded = (load_model(str(tmp_path / str(half))).denoiser for half in (False, True))
    for p, q in zip(full.network.parameters(), rounded.network.parameters(), strict=True):
        assert torch.equal(p.half().float(), q)
