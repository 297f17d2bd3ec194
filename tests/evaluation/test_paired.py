"""Differences of rows, with the error of the difference."""

import math

import pytest
import torch
from estimates import estimate

from mmd_ddm.evaluation.metrics.kid import kid_projections
from mmd_ddm.evaluation.paired import above, above_best, share_excess
from mmd_ddm.maths.projections import Projections


def drawn(shift, n, seed):
    """Features of a chain whose images depend on their noise alone."""
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise + torch.tensor([shift, 0.1 * shift, 0.0])


def test_the_error_of_a_difference_is_its_spread_over_replicates():
    """Far below that of either estimate, and that of the two if they were independent."""
    values, errors, apart = [], [], []
    for seed in range(300):
        y = drawn(0.0, 60, 10_000 + seed)
        one, two = (
            kid_projections(drawn(shift, 40, seed), y, names=("noise", "real"))
            for shift in (1.0, 1.1)
        )
        less = two - one
        values.append(less.value)
        errors.append(less.se)
        apart.append(math.hypot(one.se, two.se))
    spread = torch.tensor(values).std().item()
    rms = torch.tensor(errors).square().mean().sqrt().item()
    assert 0.9 < rms / spread < 1.15
    assert torch.tensor(apart).mean().item() > 3 * spread


def test_parts_pair_by_name_and_others_are_independent():
    x, y = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 3.0])
    one, two = Projections({"a": x, "real": y}), Projections({"b": 2 * x, "real": y})
    less = two - one
    assert less.value == pytest.approx(7 / 3)
    assert less.se == pytest.approx(math.sqrt(4 * (1 + 4) * float(x.var()) / 3))
    assert less.se_of("a") == pytest.approx(math.sqrt(4 * float(x.var()) / 3))
    assert (one - one).se == 0


def test_above_says_what_more_images_would_make_smaller():
    one = Projections({"noise": torch.tensor([1.0, 3.0]), "real": torch.tensor([0.0, 4.0])})
    two = Projections({"noise": torch.tensor([1.0, 2.0]), "real": torch.tensor([1.0, 1.0])})
    found = above({"b": one, "a": one}, {"a": two})
    assert found == {"a": {"kid": pytest.approx(1.5), "kid_se": pytest.approx(math.sqrt(17)),
                           "kid_se_drawn": pytest.approx(1.0)}}  # fmt: skip


def test_the_best_of_as_many_steps_is_the_measure():
    rows = [{"steps": 5}, {"steps": 5}, {"steps": 10}]
    kids = [{"a": estimate(3.0), "b": estimate(1.0)}, {"a": estimate(2.0), "b": estimate(4.0)},
            {"a": estimate(9.0)}]  # fmt: skip
    first, second, third = above_best(rows, kids, "a")
    values = {space: found["kid"] for space, found in first["above_best"].items()}
    assert values == {"a": pytest.approx(1.0), "b": pytest.approx(-3.0)}
    assert first["steps"] == 5
    assert second["above_best"] == third["above_best"] == {}
    _, again = above_best(rows[:2], [kids[1], dict(kids[1])], "a")
    assert again["above_best"]["a"] == {"kid": 0, "kid_se": 0, "kid_se_drawn": 0}  # the first is


def spaces(**values):
    return {space: estimate(value, of=f"{space} {value}") for space, value in values.items()}


def test_the_excess_of_a_share_is_over_half_of_the_mean_optimised_share():
    base, floor = spaces(o=10.0, p=10.0, judge=5.0), spaces(o=0.0, p=0.0, judge=1.0)
    found = share_excess(
        base, spaces(o=1.0, p=3.0, judge=4.0), floor, ["o", "p"], ["judge"]
    )  # shares 0.9, 0.7 and 0.25
    assert found["judge"]["share_excess"] == pytest.approx(0.25 - 0.5 * 0.8)
    # Of errors of 0.1 each: d s / d b = (1 - s) / gap, d s / d f = -1 / gap, d s / d r = s / gap.
    parts = [
        weight * size / gap
        for weight, gap, share in ((1, 4, 0.25), (0.25, 10, 0.9), (0.25, 10, 0.7))
        for size in (1 - share, 1, share)
    ]
    assert found["judge"]["share_excess_se"] == pytest.approx(0.1 * math.hypot(*parts))


def test_what_the_spaces_share_in_luck_cancels_in_the_excess():
    """Of a judge that is the optimised space itself: half its share, with half the error."""
    base, tuned, floor = ({"o": estimate(v, of=f"{v}")} for v in (10.0, 4.0, 0.0))
    for kid in (base, tuned, floor):
        kid["judge"] = kid["o"]
    found = share_excess(base, tuned, floor, ["o"], ["judge"])["judge"]
    assert found["share_excess"] == pytest.approx(0.3)
    error = 0.1 * math.hypot(1 - 0.6, 1, 0.6) / 10
    assert found["share_excess_se"] == pytest.approx(error / 2)


def test_a_judge_without_a_gap_is_passed_over():
    base, floor = spaces(o=10.0, j=5.0, judge=5.0), spaces(o=0.0, j=4.9, judge=1.0)
    tuned = spaces(o=1.0, j=4.9, judge=4.0)
    assert share_excess(base, tuned, floor, ["o"], ["j", "judge"]).keys() == {"judge"}


@pytest.mark.parametrize("missing", ["o", "judge"])
def test_without_a_gap_there_is_no_share(missing):
    base, floor = spaces(o=10.0, judge=5.0), spaces(o=0.0, judge=1.0)
    floor |= {missing: base[missing] - estimate(0.1, of="x")}
    tuned = spaces(o=1.0, judge=4.0)
    assert share_excess(base, tuned, floor, ["o"], ["judge"]) == {}
    assert share_excess(base, tuned, floor, [], ["judge"]) == {}


def test_a_base_that_is_the_floor_itself_has_no_gap():
    """Not even one without an error, which would be certain."""
    base, tuned = spaces(o=10.0, judge=5.0), spaces(o=1.0, judge=4.0)
    floor = spaces(o=0.0) | {"judge": base["judge"]}
    assert share_excess(base, tuned, floor, ["o"], ["judge"]) == {}
