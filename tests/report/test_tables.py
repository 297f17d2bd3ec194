"""What a report says of results: the table, the verdict, the curves."""

import copy
import json
import subprocess
import sys

import pytest
from runs import ROLES, PageReader, make_results, make_run

from mmd_ddm.report import before_after, short_names, table_lines, verdict, write_report
from mmd_ddm.report.figures import _series


def kid_row(results, space):
    return next(r for r in before_after(results) if (r.space, r.metric) == (space, "kid"))


def test_a_row_agrees_with_arithmetic_by_hand():
    row = kid_row(make_results(), "encoder")
    assert row.role == "optimised"
    assert (row.base.value, row.finetuned.value, row.floor.value) == (0.0404, 0.0011, -0.0001)
    assert row.change == pytest.approx(100 * (0.0011 - 0.0404) / 0.0404)
    assert row.share == pytest.approx((0.0404 - 0.0011) / (0.0404 + 0.0001))
    assert row.gain.value == pytest.approx(0.0393)
    assert row.gain.se == pytest.approx((0.0009**2 + 0.0002**2) ** 0.5)
    assert {label: s.value for label, s in row.others.items()} == {
        "base, 10 steps": 0.0106,
        "base, 20 steps": 0.0059,
    }


def test_table_lines_show_kid_in_thousandths_and_fd_as_it_is():
    header, *lines = table_lines(make_results())
    assert header == [
        "space", "role", "metric", "base, 5 steps", "finetuned, 5 steps", "change",
        "base, 10 steps", "base, 20 steps", "real vs real", "gap closed",
    ]  # fmt: skip
    assert all(len(line) == len(header) for line in lines)
    assert lines[2] == [
        "lite0", "held-out", "KID x1000", "3272 ± 30", "1120 ± 20", "\N{MINUS SIGN}66 %",
        "1326 ± 20", "1112 ± 20", "\N{MINUS SIGN}0.1 ± 0.2", "66 %",
    ]  # fmt: skip
    assert lines[3][:5] == ["encoder", "optimised", "FD", "8.08", "0.220"]


def test_the_base_is_the_row_with_the_finetuned_models_sampler():
    results = make_results()
    other = {**copy.deepcopy(results["rows"][0]), "spacing": "trailing", "eta": 1.0}
    other["spaces"]["encoder"]["kid"] = 0.05
    results["rows"].insert(0, other)
    row = kid_row(results, "encoder")
    assert row.base.value == 0.0404
    assert row.others["base, 5 steps, trailing, eta 1.0"].value == 0.05


def test_no_share_where_there_is_no_gap_to_close():
    results = make_results()
    results["spaces"]["lite0"]["floor"] = {"kid": 3.25, "kid_se": 0.03}
    assert kid_row(results, "lite0").share is None
    results["spaces"]["lite0"]["floor"] = {"kid": 3.0, "kid_se": 0.03}
    assert kid_row(results, "lite0").share is not None


@pytest.mark.parametrize(
    ("lite0", "encoder", "label"),
    [
        ((1.12, 0.02), (0.0011, 0.0002), "real gain"),
        # The optimised space closes 97.0 % of its gap: the bar is 48.5 %, at 1.685.
        ((1.67, 0.02), (0.0011, 0.0002), "real gain"),
        ((1.70, 0.02), (0.0011, 0.0002), "part null-space"),
        # Two combined standard errors: 2 * hypot(0.03, 0.04) = 0.1, at 3.172.
        ((3.171, 0.04), (0.0011, 0.0002), "part null-space"),
        ((3.173, 0.04), (0.0011, 0.0002), "gamed"),
        ((3.9, 0.02), (0.0011, 0.0002), "gamed"),
        ((3.27, 0.02), (0.0404, 0.0009), "no gain"),
    ],
)
def test_verdict_follows_its_rule(lite0, encoder, label):
    judged = verdict(make_results(lite0=lite0, encoder=encoder))
    assert judged.label == label
    assert judged.sentence.lower().startswith(label)
    assert "lite0" in judged.sentence
    assert "two combined standard errors" in judged.rule


def test_the_verdict_holds_the_numbers_of_every_space():
    judged = verdict(make_results(lite0=(3.9, 0.02))).record()
    assert json.loads(json.dumps(judged)) == judged
    assert {name: space["role"] for name, space in judged["spaces"].items()} == ROLES
    lite0 = judged["spaces"]["lite0"]
    assert (lite0["base"], lite0["finetuned"], lite0["floor"]) == (3.272, 3.9, -0.0001)
    assert (lite0["base_se"], lite0["finetuned_se"], lite0["floor_se"]) == (0.03, 0.02, 0.0002)
    assert lite0["share"] == pytest.approx((3.272 - 3.9) / (3.272 + 0.0001))
    improves = {name: space["improves"] for name, space in judged["spaces"].items()}
    assert improves == {"encoder": True, "random": True, "lite0": False}


def test_every_held_out_space_counts_and_selection_spaces_do_not():
    results = make_results(random=(0.9, 0.01))
    assert verdict(results).label == "real gain"
    results["spaces"]["random"]["role"] = "held-out"
    assert verdict(results).label == "gamed"


def spoil_nothing_finetuned(results):
    results["rows"].pop()


def spoil_no_base_at_k(results):
    del results["rows"][0]


def spoil_no_held_out(results):
    del results["spaces"]["lite0"]


def spoil_no_optimised(results):
    results["spaces"]["encoder"]["role"] = "selection"


def spoil_no_standard_error(results):
    del results["rows"][-1]["spaces"]["lite0"]["kid_se"]


def spoil_no_floor(results):
    del results["spaces"]["lite0"]["floor"]


def spoil_not_a_number(results):
    results["rows"][-1]["spaces"]["lite0"]["kid"] = float("nan")


SPOILERS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_incomplete_results_are_not_judged_and_still_make_a_page(spoil, tmp_path):
    results = make_results()
    spoil(results)
    results["speedup"] = None
    assert verdict(results).label == "not judged"
    page = tmp_path / "page.html"
    write_report([make_run(tmp_path / "run", results)], page)
    assert "Not judged" in PageReader(page).words


def test_a_resumed_runs_later_word_wins():
    events = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 6.0}, {"step": 2, "loss": 3.0},
              {"step": 3, "loss": float("nan")}, {"loss": 1.0}]  # fmt: skip
    assert _series(events, "loss").tolist() == [[1, 5], [2, 3]]


def test_reading_needs_neither_torch_nor_diffusers():
    code = "import sys, mmd_ddm.report; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_are_shortened_while_they_stay_apart():
    names = ["encoder:a/b.safetensors", "denoiser:base", "denoiser:other", "pixels"]
    assert short_names(names) == {
        "encoder:a/b.safetensors": "encoder",
        "denoiser:base": "denoiser:base",
        "denoiser:other": "denoiser:other",
        "pixels": "pixels",
    }
