"""Methods at equal compute: each is paid alike, tries the rates, and goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import JUDGE, mmd_ddm, save_place

import mmd_ddm as mmd
from mmd_ddm.jobs.shootout import Shootout, shootout
from mmd_ddm.report.shootout import shootout_table
from mmd_ddm.settings import load

pytestmark = pytest.mark.slow
PACKAGED = load(Shootout, Path(mmd.__file__).parent / "presets/shootout.toml")
PLAN = """
model = "base"
data = "digits.npy"
heldout = "other.npy"
judge = "JUDGE"
select = "pixels"
spaces = ["random"]
steps = [3]
forwards = 300
seeds = 2
samples = 8
rates = [1e-4, 1e-3]

[settings]
batch_size = 4
objective.features = "random"
judge_samples = 8
teacher.steps = 6

[[free]]
name = "DDIM"
sampler = "ddim"

[[free]]
name = "UniPC"
sampler = "unipc"

[[free]]
name = "longer"
sampler = "unipc"
times = [900, 700, 500, 300, 100]

[[methods]]
name = "MMD"
chain.backward = "last-1"

[[methods]]
name = "end points"
method = "endpoint"
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    save_place(folder, 24)
    digits = np.load(folder / "digits.npy")
    np.save(folder / "digits.npy", digits[:16])
    np.save(folder / "other.npy", digits[16:])
    (folder / "plan.toml").write_text(PLAN.replace("JUDGE", JUDGE))
    words = ("shootout", "--config", "plan.toml", "--out", "out")
    return folder, mmd_ddm(folder, *words), words


def rows(folder):
    return [json.loads(line) for line in (folder / "out/rows.jsonl").read_text().splitlines()]


def test_every_training_takes_as_many_passes(desk):
    folder, done, _ = desk
    assert done.code == 0, done.err
    trained = [row for row in rows(folder) if "cost" in row]
    # 2 + 3 a call of MMD; 6 + 9 of end points: 300 // (4 x 5) and 300 // (4 x 15).
    found = {row["method"]: row["cost"]["iterations"] for row in trained}
    assert found == {"MMD": 15, "end points": 5}
    for row in trained:
        name = f"{row['method'].replace(' ', '-')}-3-300-{row['rate']:g}-{row['seed']}"
        run = folder / "out/runs" / f"{name}-{row['plan']}"
        steps = [e["step"] for e in map(json.loads, (run / "log.jsonl").read_text().splitlines())
                 if e["event"] == "train"]  # fmt: skip
        assert steps[-1] == row["cost"]["iterations"]


def test_the_first_seed_chooses_the_rate_of_the_others(desk):
    folder, _, _ = desk
    for method in ("MMD", "end points"):
        own = [row for row in rows(folder) if row["method"] == method]
        first = [row for row in own if row["seed"] == 0]
        best = min(first, key=lambda row: row["spaces"]["pixels"]["kid"])
        assert [row["rate"] for row in first] == [1e-4, 1e-3]
        assert [row["rate"] for row in own if row["seed"] == 1] == [best["rate"]]


def test_rows_are_above_the_best_chain_of_no_more_calls(desk):
    folder, _, _ = desk
    every = rows(folder)
    free = {name: [row["spaces"][JUDGE]["kid"] for row in every if row["method"] == name]
            for name in ("DDIM", "UniPC")}  # fmt: skip
    best = min(free, key=lambda name: sum(free[name]))
    for row in every:
        if "cost" in row:
            assert row["above"] == best
            less = row["spaces"][JUDGE]["kid"] - free[best][row["seed"]]
            assert row["above_free"][JUDGE]["kid"] == pytest.approx(less, rel=1e-6)


def test_the_table_has_each_method_at_its_rate_and_a_star_where_it_optimised(desk):
    folder, done, _ = desk
    table = shootout_table(rows(folder), JUDGE, "pixels")
    names = {line[0]: line for line in table.lines}
    assert [*names] == ["DDIM", "UniPC", "longer", "MMD", "end points"]
    assert names["longer"][1] == "5"
    assert names["MMD"][-1].endswith(" *")
    assert not names["end points"][-1].endswith(" *")
    assert "end points" in done.out
    assert "| MMD | 3 | 5 | 15 |" in (folder / "out/shootout.md").read_text()


def test_the_same_command_makes_nothing_again(desk):
    folder, _, words = desk
    before = (folder / "out/rows.jsonl").read_bytes()
    assert mmd_ddm(folder, *words).code == 0
    assert (folder / "out/rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("forwards=10", "pay for no iteration of MMD: one takes 20, after 0"),
        ("select=random", "MMD optimises what it is judged or selected by"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(desk, setting, said):
    folder, _, (*words, _) = desk
    done = mmd_ddm(folder, *words, "new", "--set", setting)
    assert (done.code, said in done.err) == (2, True), done.err
    assert not (folder / "new/rows.jsonl").exists()


@pytest.mark.parametrize("one", PACKAGED.methods, ids=lambda one: one["name"])
def test_every_method_of_the_packaged_plan_can_be_built_and_paid(one, tmp_path):
    steps = tuple(one.get("steps", (5,)))
    plan = replace(PACKAGED, methods=(one,), steps=steps, forwards=10)
    with pytest.raises(ValueError, match=f"pay for no iteration of {one['name']}"):
        shootout(plan, tmp_path)


def test_other_settings_make_other_rows_beside_the_first(desk):
    folder, _, words = desk
    before = rows(folder)
    done = mmd_ddm(folder, *words, "--set", "seeds=1", "--set", "rates=[1e-4]", "--set",
                   "settings.batch_size=5", "--set", "methods=[]")  # fmt: skip
    assert done.code == 0, done.err
    assert rows(folder)[: len(before)] == before
    assert len(rows(folder)) == len(before) + 3  # the chains, under other settings
    assert "MMD" not in done.out
