"""The paper's tables and figures: presets that are whole, cells that are shared, a small run."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import contents, mmd_ddm, read, save_place
from PIL import Image

import mmd_ddm as package
from mmd_ddm.maths.times import SPACINGS
from mmd_ddm.paper.cells import Choice, lay_out, minutes, spatial, with_classes
from mmd_ddm.paper.presets import choose, load_experiment, preset_names
from mmd_ddm.paper.published import published_figures
from mmd_ddm.paper.tables import Layout, write_table
from mmd_ddm.samplers.registry import SAMPLERS

FOLDER = Path(package.__file__).parent / "presets"
EXPERIMENTS = [path.stem for path in (FOLDER / "experiments").glob("*.toml")]
BUNDLED = Choice(bundled=True)
SMALL = (
    "--model", "base", "--data", "digits.npy", "--inception", "pixels",
    "--clip", "encoder:clip.safetensors", "--set", "judges=encoder:judge.safetensors",
    "--set", "iterations=2", "--set", "batch_size=8", "--set", "judge_samples=16",
    "--steps", "5", "--out", "out",
)  # fmt: skip
FIGURES = ("figure-1", "figure-8", "figure-9")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduction")
    save_place(folder, 60, ("clip", "judge"))
    return folder


# Presets


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.toml")), ids=lambda path: path.stem)
def test_a_preset_is_short(path):
    assert 8 <= len(path.read_text(encoding="utf-8").splitlines()) <= 40


def test_every_table_and_figure_has_a_preset():
    wanted = [f"table-{i}" for i in range(1, 10)] + [f"figure-{i}" for i in range(1, 11)]
    assert sorted(preset_names()) == sorted(wanted)
    assert sorted(path.stem for path in (FOLDER / "paper").glob("*.toml")) == sorted(wanted)


@pytest.mark.parametrize("preset", choose(["all"]), ids=lambda preset: preset.name)
def test_a_preset_names_what_there_is(preset):
    assert set(preset.parts) <= set(EXPERIMENTS)
    assert {row.sampler for row in preset.rows.values()} <= SAMPLERS.keys()
    assert {row.match for row in preset.rows.values()} <= {"", "inception", "clip"}
    assert set(preset.improvement) <= preset.rows.keys()
    if preset.kind == "table":
        printed = [figure for figure in published_figures() if figure.table == preset.table]
        assert {figure.steps for figure in printed} == set(preset.steps)
        assert {figure.metric for figure in printed} == set(preset.metrics)
        assert preset.rows.keys() <= {figure.method for figure in printed}
        titles = {load_experiment(part).title for part in preset.parts}
        assert {figure.dataset for figure in printed} == titles


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_states_the_hidden_settings(name):
    experiment = load_experiment(name)
    assert {"batch", "clip", "dropout", "clamp", "resize"} <= experiment.hidden.keys()
    assert set(experiment.spacings.values()) <= SPACINGS.keys()
    assert experiment.spaces.keys() == {"inception", "clip"}
    ours = experiment.finetune.get("objective", {}).get("clamp")
    assert ours == (None if name == "bundled" else "hard")


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown preset 'tabel-1'; did you mean table-1"):
        choose(["tabel-1"])


# Cells


def names(name, label, k, choice=BUNDLED):
    (preset,) = choose([name])
    return {
        cell.name
        for (_, row, steps, _), cell in lay_out(preset, choice).items()
        if (row, steps) == (label, k)
    }


def test_tables_share_what_is_equal():
    cubic = names("table-1", "DDIM + MMD-DDM (Inception-V3)", 10)
    assert len(cubic) == 1
    for other in (
        ("table-2", "DDIM + MMD-DDM (Inception-V3)"), ("table-6", "Cubic"),
        ("table-7", "Linear"), ("table-8", "DDIM + MMD-DDM"), ("figure-1", "MMD-DDM (CLIP)"),
    ):  # fmt: skip
        assert (names(*other, 10) == cubic) == (other[0] != "figure-1")
    assert names("table-7", "Quadratic", 10) != cubic
    assert (
        names("table-1", "DDIM", 5) == names("table-5", "DDIM", 5) != names("table-1", "DDPM", 5)
    )


def test_a_cell_is_known_by_what_decides_its_numbers():
    for setting, same in (
        ("lr=1e-4", False), ("judge_samples=3", False), ("save_every=3", True),
        ("device=cpu", True),
    ):  # fmt: skip
        other = Choice(bundled=True, own=(setting,))
        rows = ("table-7", "Linear", 5)
        assert (names(*rows, other) == names(*rows)) == same
    base = ("table-1", "DDIM", 5)
    assert names(*base, Choice(bundled=True, own=("lr=1e-4",))) == names(*base)


def test_without_a_model_of_ones_own_each_part_has_its_cells():
    (preset,) = choose(["table-5"])
    cells = lay_out(preset, Choice())
    assert {part for part, *_ in cells} == {"cifar10", "celeba64", "imagenet64"}
    assert len({cell.name for cell in cells.values()}) == len(cells) == 12
    for cell in cells.values():
        assert cell.real == "matched"
        assert cell.spaces == ("inception", "clip", "efficientnet-lite0")
        assert spatial(cell) == "inception-spatial"
        assert with_classes(replace(cell, spaces=("inception:PATH", *cell.spaces[1:]))) == (
            "inception:PATH"
        )
        assert (cell.config.iterations, cell.config.batch_size) == (500, 128)
    own = lay_out(preset, Choice(own=("model='m'", "data='d'"), steps=(5,), seeds=3))
    assert {(part, k) for part, _, k, _ in own} == {("cifar10", 5)}
    assert {cell.real for cell in own.values()} == {"heldout"}
    assert len({cell.name for cell in own.values()}) == 6


def test_all_on_the_bundled_model_takes_less_than_ninety_minutes():
    experiment = load_experiment("bundled")
    cells = {c.name: c for preset in choose(["all"]) for c in lay_out(preset, BUNDLED).values()}
    assert 45 < sum(minutes(cell, experiment) for cell in cells.values()) < 85
    assert minutes(next(iter(cells.values())), load_experiment("cifar10")) is None


def test_a_table_shows_what_is_published_before_anything_is_made(tmp_path):
    (preset,) = choose(["table-9"])
    write_table(Layout(preset, BUNDLED, lay_out(preset, BUNDLED), {}), tmp_path)
    text = (tmp_path / "table-9.md").read_text(encoding="utf-8")
    line = "| **MMD-DDM (CLIP)** | - | 0.53 | - | 0.56 | - | 0.57 | - | 0.57 |"
    assert line in text.replace("\N{EN DASH}", "-")
    assert text.count("published (IS, CIFAR-10)") == 4
    printed = [figure for figure in published_figures() if figure.table == "IX"]
    with (tmp_path / "table-9.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["published"]]
    assert len(rows) == len(printed) == 48
    assert {row["ours"] for row in rows} == {""}


# The command


@pytest.mark.parametrize("words", [(), ("--bundled",), SMALL[:-2]])
def test_dry_run_of_all_writes_nothing(words, place, tmp_path):
    done = mmd_ddm(tmp_path, "reproduce", "all", *words, "--dry-run")
    assert (done.code, done.err) == (0, "")
    for name in preset_names():
        assert re.search(rf"^{name}  (Table|Figure) ", done.out, re.MULTILINE)
    assert "dropout: released code: 0.1, on; here: " in done.out
    assert ("minutes on two cores" in done.out) == (words == ("--bundled",))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table-10"], "unknown preset 'table-10'"),
        (["all", "--data", "d"], "give --model as well"),
        (["all", "--model", "m"], "--model needs --data"),
        (["all", "--bundled", "--steps", "five"], "takes whole numbers"),
        (["all", "--bundled", "--set", "nonsense=1"], "unknown setting nonsense"),
        (["all", "--bundled", "--out", "full"], "full holds something else"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bad_input_is_one_line(words, said, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    before = contents(tmp_path)
    done = mmd_ddm(tmp_path, "reproduce", *words)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_sampler_that_cannot_walk_leaves_a_gap(place):
    done = mmd_ddm(place, "reproduce", "table-1", *SMALL)
    assert (done.code, done.err) == (0, "")
    assert "left out Analytic-DDIM at 5 steps: " in done.out
    text = (place / "out" / "table-1.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.split("KID")[0].splitlines()]
    first = {cells[0]: cells[1:] for cells in lines}
    assert first["Analytic-DDIM"] == ["\N{EN DASH}"] * 2
    assert first["Learned Sampler"] == ["\N{EN DASH}", "13.8"]
    assert first["GENIE"][1] == "13.9"
    assert float(first["GENIE"][0]) > 0
    # IS and sFID are taken where there are classes and places.
    more = mmd_ddm(place, "reproduce", "table-9", *SMALL, "--set", "judges=efficientnet-lite0")
    assert (more.code, more.err) == (0, "")
    text = (place / "out" / "table-9.md").read_text(encoding="utf-8")
    for header, printed, low, high in (
        ("recall in pixels", 0.31, 0, 1), ("IS in efficientnet-lite0", 6.95, 1, 1000),
        ("FD in efficientnet-lite0-spatial", 22.2, 0, 1e5),
    ):  # fmt: skip
        (found,) = re.findall(rf"{header} .*?\| DDIM \| (\S+) \| {printed} \|", text, re.DOTALL)
        assert low <= float(found) <= high
    shutil.rmtree(place / "out")


def test_a_small_run_makes_tables_and_figures_once(place):
    first = mmd_ddm(place, "reproduce", "table-5", *FIGURES, *SMALL)
    assert (first.code, first.err) == (0, "")
    assert "[1 of 3] Table V: in the optimised space, and in another: DDIM, 5 steps" in first.out
    cells = sorted((place / "out" / "cells").glob("*.json"))
    assert [cell.name.rsplit("-", 1)[0] for cell in cells] == [
        "ddim-5", "ddim-5-encoder-cubic", "ddim-5-pixels-cubic",
    ]  # fmt: skip
    base, _, tuned = map(read, cells)
    text = (place / "out" / "table-5.md").read_text(encoding="utf-8")
    fd = base["row"]["spaces"]["pixels"]["fd"]
    (line,) = (x for x in text.splitlines() if x.startswith("| DDIM |") and "32.7" in x)
    assert re.split(r" *\| *", line)[2:6] == [f"{fd:.3g}", "32.7", "22.4", "131.5"]
    with (place / "out" / "table-5.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    clip = "encoder:clip.safetensors"
    (row,) = (
        r for r in rows if (r["row"], r["space"], r["metric"], r["published for"])
        == ("DDIM + MMD-DDM (Inception-V3)", clip, "fd", "CelebA")
    )  # fmt: skip
    assert float(row["ours"]) == tuned["row"]["spaces"][clip]["fd"]
    assert float(row["published"]) == 4.94
    for name in FIGURES:
        with Image.open(place / "out" / f"{name}.png") as picture:
            assert len(picture.getcolors(maxcolors=2**16)) > 50
    index = (place / "out" / "results.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\w+ \w+)", index, re.MULTILINE)
    assert headings == ["Table V", "Figure 1", "Figure 8", "Figure 9"]

    before = contents(place)
    again = mmd_ddm(place, "reproduce", *FIGURES, "table-5", *SMALL)
    assert again.code == 0
    assert "finetuning" not in again.out
    assert {k: v for k, v in contents(place).items() if ".png" not in k} == {
        k: v for k, v in before.items() if ".png" not in k
    }
