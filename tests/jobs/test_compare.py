"""The comparison of samplers: its rows, its ledger, its means over seeds, its files."""

import dataclasses
import json
from statistics import stdev

import numpy as np
import pytest
import torch

from mmd_ddm.cli import main
from mmd_ddm.config import ChainConfig
from mmd_ddm.evaluation.draw import draw
from mmd_ddm.evaluation.judge import Space, judge
from mmd_ddm.evaluation.metrics import Moments, frechet_distance
from mmd_ddm.features.multilevel import BUNDLED_ENCODER
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs import benchmark
from mmd_ddm.jobs.build import Model
from mmd_ddm.jobs.compare import SEED_STRIDE, Ledger, choose_samplers, over_seeds, plan
from mmd_ddm.models.denoiser import Denoiser
from mmd_ddm.models.export import export
from mmd_ddm.models.gamma import Gamma
from mmd_ddm.samplers.registry import SAMPLERS

CHAIN = ChainConfig(3, "ddim", "trailing", (999, 666, 332))


@pytest.fixture
def base(denoiser) -> Model:
    return Model("base", denoiser, {}, None)


@pytest.fixture
def finetuned(tiny_unet, schedule) -> Model:
    return Model("run", Denoiser(tiny_unet(seed=1), schedule, shape=(1, 8, 8)), {}, CHAIN)


def chains(entries) -> list[tuple]:
    return [(e.name, e.chain.sampler, e.chain.spacing, e.chain.steps, e.seed) for e in entries]


# Which rows


def test_all_samplers_are_those_that_differ(denoiser):
    chosen = choose_samplers(["all"])
    assert set(SAMPLERS) - set(chosen) == {"fastdpm-step", "dpm-solver-1"}
    assert choose_samplers(["fastdpm-step", "ddim"]) == ["fastdpm-step", "ddim"]


def test_plan_has_runs_first_then_every_chain_seed_by_seed(base, finetuned):
    entries, notes = plan(base, [finetuned], ["ddim", "unipc"], ["leading"], [2, 4], seeds=2)
    assert notes == []
    one_seed = [
        ("finetuned", "ddim", "trailing", 3),
        ("base", "ddim", "leading", 2),
        ("base", "unipc", "leading", 2),
        ("base", "ddim", "leading", 4),
        ("base", "unipc", "leading", 4),
    ]
    assert chains(entries) == [(*row, seed) for seed in (0, 1) for row in one_seed]
    assert entries[0].sampler.denoiser is finetuned.denoiser
    assert entries[0].sampler.times == CHAIN.times


def test_plan_notes_what_a_sampler_cannot_walk(base):
    entries, notes = plan(base, [], ["ddim", "f-pndm"], ["leading", "trailing"], [3, 5], seeds=2)
    assert {(e.chain.sampler, e.chain.steps) for e in entries} == {
        ("ddim", 3),
        ("ddim", 5),
        ("f-pndm", 5),
    }
    assert notes == ["left out f-pndm at 3 steps: F-PNDM needs at least 4 steps; got 3"]


def test_plan_notes_once_what_a_sampler_lacks_and_refuses_it_by_name(base):
    _, notes = plan(base, [], ["all"], ["leading"], [5, 10], seeds=1)
    assert [note.partition(":")[0] for note in notes] == [
        "left out analytic-dpm at 5, 10 steps",
        "left out analytic-ddim at 5, 10 steps",
        "left out genie-head at 5, 10 steps",
    ]
    with pytest.raises(ValueError, match="analytic-dpm at 5, 10 steps: the Gamma of a model"):
        plan(base, [], ["ddim", "analytic-dpm"], ["leading"], [5, 10], seeds=1)


def test_plan_has_a_custom_list_beside_the_spacings(base):
    entries, _ = plan(base, [], ["ddim", "unipc"], ["leading"], [2], seeds=1, times=(900.5, 30, 2))
    assert [c[1:4] for c in chains(entries)] == [
        ("ddim", "leading", 2),
        ("unipc", "leading", 2),
        ("ddim", "custom", 3),
        ("unipc", "custom", 3),
    ]
    assert entries[-1].sampler.times == (900.5, 30, 2)


def test_a_sampler_with_times_of_its_own_has_one_row(base):
    entries, _ = plan(base, [], ["ddim", "fastdpm-var"], ["leading", "trailing"], [4], seeds=1)
    assert [c[1:3] for c in chains(entries)] == [
        ("ddim", "leading"),
        ("ddim", "trailing"),
        ("fastdpm-var", "leading"),
    ]


def test_a_run_with_the_weights_of_the_base_keeps_its_row_and_is_drawn_once(base, tmp_path):
    run = dataclasses.replace(base, name="run", chain=CHAIN)
    entries, _ = plan(base, [run], ["ddim"], ["trailing"], [3], seeds=1)
    ledger = Ledger(tmp_path / "rows.jsonl")
    assert len(entries) == 2
    (entry,) = ledger.missing(entries)
    ledger.add(row_of(entry, kid=0.5))
    assert [(row["name"], row["model"]) for row in ledger.rows(entries)] == [
        ("finetuned", "run"),
        ("base", "base"),
    ]
    assert len(over_seeds(ledger.rows(entries))) == 2


def test_only_ancestral_sampling_clips(base):
    entries, _ = plan(base, [], ["all"], ["leading"], [4], seeds=1)
    assert {e.chain.sampler for e in entries if e.sampler.clip} == {"ddpm-small", "ddpm-large"}


# The ledger


def row_of(entry, kid: float, fd: float = 1.0, speed: float = 10.0) -> dict:
    return {
        "name": entry.name,
        "model": entry.model.name,
        "spacing": entry.chain.spacing,
        "nfe": entry.chain.steps,
        "images_per_second": speed,
        "spaces": {"pixels": {"fd": fd, "kid": kid, "kid_se": 0.25}},
        **entry.identity,
    }


def test_ledger_remembers_across_openings(base, tmp_path):
    entries, _ = plan(base, [], ["ddim"], ["leading"], [2, 4], seeds=2)
    path = tmp_path / "rows.jsonl"
    Ledger(path).add(row_of(entries[0], kid=1.0))
    Ledger(path).add(row_of(entries[3], kid=2.0))
    assert Ledger(path).missing(entries) == entries[1:3]
    assert [row["spaces"]["pixels"]["kid"] for row in Ledger(path).rows(entries)] == [1.0, 2.0]


def test_ledger_tells_networks_apart(base, finetuned, tmp_path):
    (entry,), _ = plan(base, [], ["ddim"], ["leading"], [2], seeds=1)
    ledger = Ledger(tmp_path / "rows.jsonl")
    ledger.add(row_of(entry, kid=1.0))
    other = dataclasses.replace(finetuned, name="base", chain=None)
    entries, _ = plan(other, [], ["ddim"], ["leading"], [2], seeds=1)
    assert ledger.missing(entries) == entries


@pytest.mark.parametrize("text", ['{"weights": ', '{"weights": "a"}\n', "[1]\n"])
def test_damaged_ledger_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.jsonl is damaged"):
        Ledger(tmp_path / "rows.jsonl")


# Means over seeds


def test_over_seeds_is_mean_and_standard_error(base):
    entries, _ = plan(base, [], ["ddim", "unipc"], ["leading"], [2], seeds=3)
    kids = {("ddim", 0): 1.0, ("ddim", 1): 2.0, ("ddim", 2): 6.0, ("unipc", 0): 4.0}
    rows = [
        row_of(e, kid=kids[key], fd=10 * kids[key], speed=kids[key])
        for e in entries
        if (key := (e.chain.sampler, e.seed)) in kids
    ]
    ddim, unipc = over_seeds(rows)
    error = stdev([1.0, 2.0, 6.0]) / 3**0.5
    assert ddim["seeds"] == 3
    assert "seed" not in ddim
    assert ddim["images_per_second"] == 3.0
    assert ddim["spaces"]["pixels"] == pytest.approx(
        {"kid": 3.0, "kid_se": error, "fd": 30.0, "fd_se": 10 * error}
    )
    # One seed keeps the error it has.
    assert (unipc["seeds"], unipc["spaces"]) == (1, {"pixels": rows[1]["spaces"]["pixels"]})


# The verb


@pytest.fixture
def workplace(base, finetuned, tmp_path, monkeypatch):
    """Tiny model, run and images; and the verb, called with words, giving its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    scheduler = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
    export(base.denoiser, scheduler, None, tmp_path / "base")
    export(finetuned.denoiser, scheduler, dataclasses.asdict(CHAIN), tmp_path / "run" / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.save("real.npy", pixels)
    space = {"role": "optimised", "sha256": make_features("random", 1).sha256}
    (tmp_path / "run" / "results.json").write_text(json.dumps({"spaces": {"random": space}}))

    def bench(*words: str) -> int:
        command = ["mmd-ddm", "bench", "base", "--data", "real.npy", "--out", "table", "-n", "4"]
        command += ["--features", "pixels", "--features", "random", *words]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code or 0

    return bench


def drawn(monkeypatch) -> list[tuple[str, int]]:
    """The rows that are drawn from now on: sampler class and first seed."""
    seen: list[tuple[str, int]] = []

    def spy(sampler, n, *, seed, **options):
        seen.append((type(sampler).__name__, seed))
        return draw(sampler, n, seed=seed, **options)

    monkeypatch.setattr(benchmark, "draw", spy)
    return seen


def test_bench_draws_judges_and_goes_on(workplace, base, tmp_path, monkeypatch):
    seen = drawn(monkeypatch)
    words = ["--samplers", "ddim,heun", "--steps", "2", "--run", "run", "--seeds", "2"]
    assert workplace(*words) == 0
    assert seen == [(s, seed) for seed in (0, SEED_STRIDE) for s in ("DDIM", "DDIM", "Heun")]
    content = json.loads((tmp_path / "table" / "bench.json").read_text())
    assert [(r["name"], r["steps"], r["nfe"], r["seeds"]) for r in content["rows"]] == [
        ("finetuned", 3, 3, 2),
        ("base", 2, 2, 2),
        ("base", 2, 3, 2),
    ]
    assert {s: about["role"] for s, about in content["spaces"].items()} == {
        "pixels": "held-out",
        "random": "optimised",
    }
    first = (tmp_path / "table" / "bench.csv").read_text()
    for name in ("bench.md", "bench.png"):
        (tmp_path / "table" / name).unlink()
    seen.clear()
    assert workplace(*words) == 0
    assert seen == []
    assert (tmp_path / "table" / "bench.csv").read_text() == first
    assert (tmp_path / "table" / "bench.png").is_file()
    assert workplace(*words[:3], "2,3", *words[4:]) == 0
    assert seen == [(s, seed) for seed in (0, SEED_STRIDE) for s in ("DDIM", "Heun")]


def test_numbers_are_those_of_the_images_against_all_real_ones(workplace, tmp_path):
    assert workplace("--samplers", "ddim", "--steps", "2", "--seeds", "2") == 0
    lines = (tmp_path / "table" / "rows.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    assert row["seed"] == 1
    (entry,), _ = plan(benchmark.load_model("base"), [], ["ddim"], ["leading"], [2], seeds=1)
    pixels, _ = draw(entry.sampler, 4, seed=1_000_000)
    phi = make_features("pixels", 1)
    real = phi(torch.from_numpy(np.load("real.npy"))[:, None] / 127.5 - 1)
    expected = judge(pixels, [Space("pixels", "held-out", phi, real, real)])["pixels"]
    assert row["spaces"]["pixels"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--samplers", "ddim,euler"), "unknown sampler 'euler'"),
        (("--steps", "5,x"), "got 'x'"),
        (("--steps", "0"), "steps must be from 1"),
        (("--steps", ","), "nothing to compare"),
        (("--steps", "3", "--samplers", "f-pndm"), "F-PNDM needs at least 4 steps"),
        (("--steps", "1", "--samplers", "ddim,s-pndm"), "S-PNDM needs at least 2 steps; got 1"),
        (("--times", "100,900"), "times must decrease from noise to data; got 100 before 900"),
        (("--times", "900,900"), "times must decrease from noise to data; got 900 before 900"),
        (("--times", "1000,10"), "time 1000 is outside 0 ... 999"),
        (("--times", "900,-1"), "time -1 is outside 0 ... 999"),
        (("--times", "900,ten"), "times are numbers with commas between"),
        (("--samplers", "ddim,analytic-dpm"), "no Gamma of base: estimate it with `mmd-ddm gamma"),
        (("--spacing", "even"), "unknown spacing 'even'"),
        (("--run", "base"), "base is not a finetuned model"),
        (("--run", "nowhere"), "no model at"),
        (("--features", "taste"), "unknown feature space 'taste'"),
        (("-n", "1"), "-n must be from 2"),
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--precision", "float8"), "unknown precision 'float8'"),
        (("--data", "nowhere"), "no data at"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_line_and_leave_no_trace(workplace, tmp_path, capsys, words, says):
    assert workplace("--samplers", "ddim", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mmd-ddm: error: ")
    assert says in line
    assert not (tmp_path / "table").exists()


def test_gamma_of_another_model_is_refused(workplace, base, tmp_path, capsys):
    gamma = Gamma("other", "real.npy", "d", 2, 0, values=(0.5,) * 1000)
    gamma.save(tmp_path / "base" / "gamma.json")
    assert workplace("--samplers", "ddim,analytic-ddim") == 2
    assert "gamma.json is of another model: delete it, then" in capsys.readouterr().err
    assert not (tmp_path / "table").exists()


def test_an_encoder_of_ones_own_goes_by_its_name(workplace, tmp_path):
    encoder = f"encoder:{BUNDLED_ENCODER}"
    words = ("--samplers", "ddim", "--steps", "2", "--features", encoder)
    assert workplace(*words) == 0
    content = json.loads((tmp_path / "table" / "bench.json").read_text())
    assert list(content["spaces"]) == ["pixels", "random", "encoder"]


def test_other_counts_need_another_folder(workplace, capsys):
    assert workplace("--samplers", "ddim", "--steps", "2") == 0
    assert workplace("--samplers", "ddim", "--steps", "2", "-n", "5") == 2
    assert "samples: 4 -> 5" in capsys.readouterr().err


# The Frechet distance with one side kept


def test_frechet_distance_of_moments_is_that_of_features():
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 5, generator=draw, dtype=torch.float64) for n in (30, 40))
    x = x @ torch.randn(5, 5, generator=draw, dtype=torch.float64) + 1
    cov_x, cov_y = np.cov(x.T.numpy()), np.cov(y.T.numpy())
    roots = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).real).sum()
    means = np.square(x.numpy().mean(0) - y.numpy().mean(0)).sum()
    expected = means + np.trace(cov_x) + np.trace(cov_y) - 2 * roots
    kept = Moments.of(y)
    for a, b in ((x, y), (x, kept), (Moments.of(x), kept), (kept, x)):
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_in_one_dimension_has_a_closed_form():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [13.0]])
    assert frechet_distance(x, y) == pytest.approx((9 - 1) ** 2 + (32**0.5 - 2**0.5) ** 2)
