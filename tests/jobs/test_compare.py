"""The comparison of samplers: its rows, what is drawn again, its files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from commands import Counting

from mmd_ddm.cli import main
from mmd_ddm.config import ChainConfig
from mmd_ddm.data.images import ImageSet, load_images
from mmd_ddm.evaluation.metrics import Moments, frechet_distance
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.multilevel import BUNDLED_ENCODER
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import Model, load_model
from mmd_ddm.jobs.compare import compare
from mmd_ddm.jobs.compare_rows import PUBLISHED, choose_samplers, plan_entries
from mmd_ddm.maths.random import JUDGE
from mmd_ddm.models.export import export
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.gamma import Gamma
from mmd_ddm.report.results import comparison_table
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.registry import SAMPLERS

CHAIN = ChainConfig(3, "ddim", "trailing", (999, 666, 332), clip=False)


@pytest.fixture
def base(denoiser) -> Model:
    return Model("base", denoiser, {}, None)


@pytest.fixture
def finetuned(tiny_unet, schedule) -> Model:
    return Model("run", UNet2D(tiny_unet(seed=1), schedule, shape=(1, 8, 8)), {}, CHAIN)


def chains(entries) -> list[tuple]:
    return [(e.name, e.chain.sampler, e.chain.spacing, e.chain.steps) for e in entries]


# Which rows


def test_samplers_are_chosen_by_name_or_all():
    assert choose_samplers(["all"]) == list(SAMPLERS)
    assert choose_samplers(["heun", "ddim"]) == ["heun", "ddim"]


def test_plan_has_runs_first_then_every_chain(base, finetuned):
    entries, notes = plan_entries(base, [finetuned], ["ddim", "unipc"], ["leading"], [5, 6])
    assert notes == []
    assert chains(entries) == [
        ("finetuned", "ddim", "trailing", 3),
        ("base", "ddim", "leading", 5),
        ("base", "unipc", "leading", 5),
        ("base", "ddim", "leading", 6),
        ("base", "unipc", "leading", 6),
    ]
    assert entries[0].sampler.denoiser is finetuned.denoiser
    assert entries[0].sampler.times == CHAIN.times


def test_every_sampler_walks_what_its_authors_did(base):
    names = [name for name in SAMPLERS if name not in ("analytic-dpm", "analytic-ddim")]
    entries, _ = plan_entries(base, [], ["all"], [PUBLISHED], [10])
    found = {e.chain.sampler: e.chain.spacing for e in entries}
    assert found.keys() == {*names} - {"genie-head"}
    assert (found["ddim"], found["unipc"], found["deis"], found["heun"]) == (
        "leading", "log-snr-open", "quadratic-formula", "karras"
    )  # fmt: skip
    assert found["fastdpm-var"] == "midpoint"  # whose times are its own
    orders = [(e.chain.sampler, e.sampler.order) for e in entries if e.chain.order]
    assert orders == [
        *(("ipndm", p) for p in (2, 3, 4)),
        *(("unipc", p) for p in (2, 3)),
        *(("deis", p) for p in (2, 3, 4)),
    ]
    assert len(entries) == len(found) + 2 + 1 + 2


def test_orders_are_of_few_steps_or_the_sampler_s_own(base):
    """Three steps know three eps at most; spacings that were asked for are walked as they are."""

    def orders(spacing: str, k: int) -> list[int]:
        return [e.sampler.order for e in plan_entries(base, [], ["deis"], [spacing], [k])[0]]

    assert orders(PUBLISHED, 3) == [2, 3]
    assert orders("trailing", 3) == [2]
    assert orders("trailing", 8) == [4]


def test_a_start_far_from_noise_is_a_note(base):
    """Leading times of four steps begin at 750; those of a solver's own grid at the end."""
    entries, notes = plan_entries(base, [], ["ddim", "unipc"], [PUBLISHED, "midpoint"], [4])
    assert [(e.chain.sampler, e.chain.spacing) for e in entries] == [
        ("ddim", "midpoint"),
        *[("unipc", "log-snr-open")] * 2,
        *[("unipc", "midpoint")] * 2,
    ]  # fmt: skip
    (note,) = notes
    assert note.startswith("left out ddim at 4 steps: the chain starts at t = 750, where alpha = ")
    with pytest.raises(ValueError, match="left out ddim at 4 steps: the chain starts at t = 750"):
        plan_entries(base, [], ["ddim"], ["leading"], [4])


def test_a_solver_is_shown_at_its_best(workplace):
    options = {"samplers": ["ddim", "unipc"], "steps": [5], "n": 6, "features": ["pixels"]}
    found = compare("base", "real.npy", **options).record
    assert len(found["rows"]) == 2 + 2 * 2
    for name in ("ddim", "unipc"):
        rows = [row for row in found["rows"] if row["sampler"] == name]
        kids = [row["spaces"]["pixels"]["kid"] for row in rows]
        assert [row["shown"] for row in rows] == [
            i == kids.index(min(kids)) for i in range(len(kids))
        ]
    assert len(comparison_table(found).lines) == 2 + 1  # and the floor
    listed = compare("base", "real.npy", times=(999, 700, 400, 200, 90), **options).record
    shown = [row["shown"] for row in listed["rows"] if row["spacing"] == "custom"]
    assert (shown[0], sum(shown[1:])) == (True, 1)  # DDIM's; of UniPC's orders one, be they equal
    assert len(comparison_table(listed).lines) == 4 + 1
    asked = compare("base", "real.npy", spacings=["leading", "midpoint"], **options).record
    assert len(comparison_table(asked).lines) == 4 + 1


def test_plan_notes_what_a_sampler_cannot_walk(base):
    entries, notes = plan_entries(base, [], ["ddim", "f-pndm"], ["midpoint", "trailing"], [3, 5])
    assert {(e.chain.sampler, e.chain.steps) for e in entries} == {
        ("ddim", 3),
        ("ddim", 5),
        ("f-pndm", 5),
    }
    assert notes == ["left out f-pndm at 3 steps: F-PNDM needs at least 4 steps; got 3"]


def test_plan_notes_every_fault_of_a_sampler(base):
    _, notes = plan_entries(base, [], ["ddim", "f-pndm"], ["trailing"], [2, 3, 5])
    assert notes == [
        f"left out f-pndm at {k} steps: F-PNDM needs at least 4 steps; got {k}" for k in (2, 3)
    ]


def test_plan_notes_once_what_a_sampler_lacks_and_refuses_it_by_name(base):
    _, notes = plan_entries(base, [], ["all"], ["leading"], [5, 10])
    assert [note.partition(":")[0] for note in notes] == [
        "left out analytic-dpm at 5, 10 steps",
        "left out analytic-ddim at 5, 10 steps",
        "left out genie-head at 5, 10 steps",
    ]
    with pytest.raises(ValueError, match="analytic-dpm at 5, 10 steps: the Gamma of a model"):
        plan_entries(base, [], ["ddim", "analytic-dpm"], ["leading"], [5, 10])


def test_plan_has_a_custom_list_beside_the_spacings(base):
    entries, _ = plan_entries(base, [], ["ddim", "unipc"], ["leading"], [5], times=(900.5, 30, 2))
    assert [c[1:4] for c in chains(entries)] == [
        ("ddim", "leading", 5),
        ("unipc", "leading", 5),
        ("ddim", "custom", 3),
        ("unipc", "custom", 3),
    ]
    assert entries[-1].sampler.times == (900.5, 30, 2)


def test_a_sampler_with_times_of_its_own_has_one_row(base):
    entries, _ = plan_entries(base, [], ["ddim", "fastdpm-var"], ["leading", "trailing"], [5])
    assert [c[1:3] for c in chains(entries)] == [
        ("ddim", "leading"),
        ("ddim", "trailing"),
        ("fastdpm-var", "leading"),
    ]


def test_a_run_with_the_weights_of_the_base_keeps_its_row(base):
    run = dataclasses.replace(base, name="run", chain=CHAIN)
    entries, _ = plan_entries(base, [run], ["ddim"], ["trailing"], [3])
    assert [(entry.name, entry.model) for entry in entries] == [
        ("finetuned", "run"),
        ("base", "base"),
    ]


def test_only_ancestral_sampling_clips(base):
    entries, _ = plan_entries(base, [], ["all"], ["leading"], [5])
    assert {e.chain.sampler for e in entries if e.sampler.clip} == {"ddpm-small", "ddpm-large"}


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
    np.save("matched.npy", pixels[::-1][:10] ^ 1)
    settings = {
        "model": "base", "data": "matched.npy", "objective": {"features": ["random"]},
        "select": {"features": "encoder", "every": 0},
    }  # fmt: skip
    record = {"verb": "finetune", "settings": settings}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))

    def bench(*words: str) -> int:
        command = ["mmd-ddm", "bench", "base", "--data", "real.npy", "--out", "table", "-n", "4"]
        command += ["--features", "pixels", "--features", "random", *words]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code or 0

    return bench


def test_what_any_run_matched_is_left_out(workplace, tmp_path):
    matched, real = np.load("matched.npy"), np.load("real.npy")
    np.save("both.npy", np.concatenate([matched, real]))
    options = {"runs": ["run"], "samplers": ["ddim"], "steps": [3], "n": 4, "features": ["pixels"]}
    found = compare("base", "both.npy", **options).record["protocol"]
    assert (found["real"], found["seen_dropped"]) == (12 + 2, 8)  # two were held out
    assert (
        "seen_dropped"
        not in compare("base", "both.npy", **{**options, "runs": []}).record["protocol"]
    )


@pytest.mark.slow
def test_a_table_is_drawn_once_and_what_is_missing_afterwards(workplace, tmp_path):
    def table(steps, **options):
        progress = Counting()
        found = compare(
            "base", "real.npy", samplers=["ddim", "heun"], spacings=["trailing"], steps=steps,
            runs=["run"], seeds=2,
            n=4, features=["pixels", "random"], out=tmp_path / "table", progress=progress,
            **options,
        )  # fmt: skip
        return found, progress.drawn

    found, drawn = table([2])
    assert drawn == 3 * 2 * 4
    assert [(r["name"], r["steps"], r["nfe"], r["seeds"]) for r in found.rows] == [
        ("finetuned", 3, 3, 2),
        ("base", 2, 2, 2),
        ("base", 2, 3, 2),
    ]
    content = json.loads((tmp_path / "table" / "bench.json").read_text())
    assert content == found.record
    assert {s: about["role"] for s, about in content["spaces"].items()} == {
        "pixels": "held-out",
        "random": "optimised",
    }
    first = (tmp_path / "table" / "bench.csv").read_text()
    for name in ("bench.md", "bench.png"):
        (tmp_path / "table" / name).unlink()
    again, drawn = table([2])
    assert drawn == 0
    assert again.record == found.record
    assert (tmp_path / "table" / "bench.csv").read_text() == first
    assert (tmp_path / "table" / "bench.png").is_file()
    assert table([2, 3])[1] == 2 * 2 * 4


@pytest.mark.parametrize("change", [{"beta_end": 0.03}, {"beta_start": 2e-4}], ids=str)
def test_another_noise_schedule_is_drawn_again(change, workplace, tmp_path):
    def drawn():
        progress = Counting()
        compare("base", "real.npy", samplers=["ddim"], spacings=["midpoint"], steps=[3], n=4,
                features=["pixels"], progress=progress)  # fmt: skip
        return progress.drawn

    assert (drawn(), drawn()) == (4, 0)
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert drawn() == 4


def test_numbers_are_those_of_the_images_against_all_real_ones(workplace):
    found = compare("base", "real.npy", samplers=["ddim"], steps=[3], n=4, features=["pixels"])
    (entry,), _ = plan_entries(load_model("base"), [], ["ddim"], ["midpoint"], [3])
    pixels, _ = draw(entry.sampler, 4, seed=0, purpose=JUDGE)
    space = Space("pixels", "held-out", make_features("pixels", 1), load_images("real.npy"))
    expected = space.scores(ImageSet(pixels, "drawn"))
    assert found.rows[0]["spaces"]["pixels"] == pytest.approx(expected, rel=1e-5)


def test_seeds_share_no_noise(workplace):
    options = {"samplers": ["ddim"], "steps": [3], "n": 4, "features": ["pixels"]}
    one, two = (compare("base", "real.npy", seeds=k, **options).rows[0] for k in (1, 2))
    (entry,), _ = plan_entries(load_model("base"), [], ["ddim"], ["midpoint"], [3])
    space = Space("pixels", "held-out", make_features("pixels", 1), load_images("real.npy"))
    pixels, _ = draw(entry.sampler, 4, seed=1, purpose=JUDGE)
    second = space.scores(ImageSet(pixels, "drawn"))["kid"]
    mean = (one["spaces"]["pixels"]["kid"] + second) / 2
    assert two["spaces"]["pixels"]["kid"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--samplers", "ddim,euler"), "unknown sampler 'euler'"),
        (("--steps", "5,x"), "got 'x'"),
        (("--steps", "0"), "steps must be from 1"),
        (("--steps", ","), "nothing to compare"),
        (
            ("--steps", "3", "--spacing", "midpoint", "--samplers", "f-pndm"),
            "needs at least 4 steps",
        ),
        (("--steps", "2", "--spacing", "midpoint"), "starts at t = 750, where alpha = 0.057"),
        (
            ("--steps", "1", "--samplers", "ddim,s-pndm", "--spacing", "trailing"),
            "S-PNDM needs at least 2 steps; got 1",
        ),
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
        (("-n", "1"), "-n must be at least 2"),
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
    words = ("--samplers", "ddim", "--steps", "3", "--features", encoder)
    assert workplace(*words) == 0
    content = json.loads((tmp_path / "table" / "bench.json").read_text())
    assert list(content["spaces"]) == ["pixels", "random", "encoder"]


def test_more_images_replace_the_table_and_fewer_need_another_folder(workplace, tmp_path, capsys):
    assert workplace("--samplers", "ddim", "--steps", "3") == 0
    assert workplace("--samplers", "ddim", "--steps", "3", "-n", "5") == 0
    content = json.loads((tmp_path / "table" / "bench.json").read_text())
    assert content["protocol"]["samples"] == 5
    assert len(content["rows"]) == 1
    assert workplace("--samplers", "ddim", "--steps", "3", "-n", "4") == 2
    assert "samples: 5 -> 4" in capsys.readouterr().err


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
