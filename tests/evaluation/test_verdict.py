"""Was the gain real? The rule, at its edges."""

import json

import pytest
from run_folders import ROLES, PageReader, make_results, make_run

from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.report import write_report


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
