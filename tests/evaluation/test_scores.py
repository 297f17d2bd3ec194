"""Before, after and the floor: read from results, compared by hand."""

import copy

import pytest
from run_folders import make_results

from mmd_ddm.evaluation.scores import (
    Score,
    before_after,
    format_percent,
    format_score,
    metric_name,
    metrics_in,
    row_label,
    without_errors,
)


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
    results["spaces"]["lite0"]["floor"] = {}
    assert kid_row(results, "lite0").share is None


@pytest.mark.parametrize(
    ("value", "se", "metric", "text"),
    [
        (0.0404, 0.0009, "kid", "40.4 ± 0.9"),
        (-0.00012, 0.00123, "kid", "\N{MINUS SIGN}0.1 ± 1.2"),
        (221.7, 0.0, "fd", "222"),
        (0.0123456, 0.0, "precision", "0.0123"),
        (0.0, 0.0, "fd", "0"),
        (-0.00001, 0.0005, "kid", "0.0 ± 0.5"),
    ],
)
def test_a_score_is_written_as_precisely_as_it_is_known(value, se, metric, text):
    assert format_score(Score(value, se), metric) == text


def test_metrics_are_named_with_their_unit():
    assert [metric_name(m) for m in ("kid", "fd", "is", "cmmd", "recall")] == [
        "KID x1000", "FD", "IS", "CMMD", "recall",
    ]  # fmt: skip


@pytest.mark.parametrize("base", [0.0, -0.001])
def test_no_change_in_per_cent_of_a_base_that_is_not_above_zero(base):
    results = make_results()
    results["rows"][0]["spaces"]["encoder"]["kid"] = base
    row = kid_row(results, "encoder")
    assert row.change is None
    assert row.gain.value == pytest.approx(base - 0.0011)


def test_metrics_of_ones_own_come_behind_the_others():
    results = make_results()
    results["rows"][1]["spaces"]["encoder"] |= {"gap": 1.0, "gap_se": 0.1}
    results["rows"][0]["spaces"]["encoder"] = None
    results["rows"].append({"name": "images"})
    known = ["kid", "class_kid", "accuracy", "fd", "swd", "precision", "recall", "density"]
    known += ["coverage", "is", "cmmd"]
    assert metrics_in(results) == [*known, "gap"]
    assert without_errors(["is", "is_sd", "kid", "kid_se"]) == ["is", "kid"]
    assert Score.over([Score(2.0, 0.5)]) == Score(2.0, 0.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10.0, "10 %"),
        (9.94, "9.9 %"),
        (-10.0, "\N{MINUS SIGN}10 %"),
        (0.5, "0.5 %"),
        (0.0, "0.0 %"),
        (None, "\N{EN DASH}"),
    ],
)
def test_per_cent_are_whole_from_ten_up(value, text):
    assert format_percent(value) == text
    signed = f"+{text}" if value and value > 0 else text
    assert format_percent(value, signed=True) == signed
    assert format_percent(value and value / 100, scale=100) == text


def test_other_rows_that_differ_by_their_model_alone_are_all_there():
    results = make_results()
    results["rows"].append({**results["rows"][1], "model": "other"})
    labels = kid_row(results, "encoder").others.keys()
    assert {"base, 10 steps, other", "base, 20 steps"} <= labels
    assert len(labels) == 3


def test_rows_that_differ_by_their_model_alone_are_told_apart_by_it():
    one, other = ({"name": "base", "steps": 5, "model": model} for model in "ab")
    assert row_label(one, among=[one, other]) == "base, 5 steps, a"
    assert row_label(one, among=[one, {**other, "steps": 6}]) == "base, 5 steps"
    assert row_label({**one, "sampler": "ddim"}, one) == "base, 5 steps, ddim"
    assert row_label(one, one, [one, {**other, "eta": 1.0}]) == "base, 5 steps"
    like = {**one, "eta": 1.0}
    assert row_label(one, like, [one, {**other, "eta": 1.0}]) == "base, 5 steps, eta None"
    assert row_label({**one, "name": "images"}) == "a"
    assert row_label(one, {**other, "eta": 1.0}, [one]) == "base, 5 steps, eta None"
