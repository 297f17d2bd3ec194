"""The verdict on one model for several numbers of steps: every judge at each is tested."""

import pytest
from run_folders import make_budgets

from mmd_ddm.evaluation.scores import before_after, budgets_in, contest
from mmd_ddm.evaluation.verdict import RULE, listed, verdict

BETTER, NO, WORSE = (5.0, 1.0), (0.0, 1.0), (-5.0, 1.0)


@pytest.mark.parametrize(
    ("gains", "optimised", "label", "gained"),
    [
        # Holm: of three, the best needs z of 2.394, the next 2.241, the last 1.960.
        ({8: (2.40, 1), 3: (2.25, 1), 5: (1.97, 1)}, {}, "real gain", [3, 5, 8]),
        ({8: (2.40, 1), 3: (2.23, 1), 5: (1.97, 1)}, {}, "not resolved", [8]),
        ({8: (2.38, 1), 3: (2.25, 1), 5: (1.97, 1)}, {}, "not resolved", []),
        ({8: BETTER, 3: BETTER, 5: (1.95, 1)}, {}, "not resolved", [3, 8]),
        # Worse at one: two tests a judge and number of steps, so z of 2.638 with three.
        ({8: BETTER, 3: (-2.65, 1), 5: BETTER}, {}, "gamed", [5, 8]),
        ({8: BETTER, 3: (-2.62, 1), 5: BETTER}, {}, "not resolved", [5, 8]),
        # Nobody gamed at a number of steps at which nothing was gained.
        ({8: BETTER, 3: WORSE, 5: BETTER}, {3: NO}, "worse", [5, 8]),
        ({8: NO, 3: NO}, {}, "not resolved", []),
    ],
)
def test_verdict_is_over_all_numbers_of_steps_together(gains, optimised, label, gained):
    found = verdict(make_budgets(gains, optimised))
    assert (found.label, found.gained) == (label, gained)
    assert found.sentence.lower().startswith(label)
    assert found.rule == f"{RULE} Each held-out space counts at each of the numbers of steps."
    assert found.spaces.keys() == {
        f"{space} at {k} steps" for space in ("lite0", "encoder", "random") for k in gains
    }


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        (
            {8: (1, 0.1), 3: (2, 0.1), 5: (1.5, 0.1)},
            "Real gain: held-out lite0 improves at 3, 5 and 8 steps (KID -61 % to -31 %), against "
            "optimised encoder improves at 3, 5 and 8 steps (KID -74 %)",
        ),
        (
            {8: (-1, 0.1), 3: (2, 0.1), 5: (0, 0.1)},
            "Gamed: optimised encoder improves at 3, 5 and 8 steps (KID -74 %), but "
            "held-out lite0 gets worse at 8 steps (KID +31 %)",
        ),
        (
            {8: (0.19, 0.1), 3: (2, 0.1)},
            "held-out lite0 improves at 3 steps (KID -61 %), is not changed for certain at 8 "
            "steps (KID -5.8 %); draw about",
        ),
    ],
)
def test_the_sentence_names_the_numbers_of_steps(gains, words):
    sentence = verdict(make_budgets(gains)).sentence
    assert words in sentence.replace("\N{MINUS SIGN}", "-")


def test_of_one_number_of_steps_nothing_is_said_of_several():
    results = make_budgets({5: BETTER, 3: BETTER})
    assert budgets_in(results) == [3, 5]
    results["rows"] = [row for row in results["rows"] if row["steps"] in (5, 20)]
    assert budgets_in(results) == []
    assert verdict(results).rule == RULE
    del results["speedup"]  # an evaluation of a finetuned model at several numbers of steps
    assert budgets_in({**make_budgets({5: BETTER, 3: BETTER}), "speedup": None}) == [3, 5]
    assert budgets_in(results) == []


def test_rows_of_one_number_of_steps_are_asked_for_by_it():
    results = make_budgets({8: (1.0, 0.1), 3: (2.0, 0.1)})
    for asked, steps in ((None, 8), (3, 3), (8, 8)):
        finetuned, base = contest(results, asked)
        assert finetuned["steps"] == base["steps"] == steps
        (row,) = (
            r for r in before_after(results, asked) if (r.space, r.metric) == ("lite0", "kid")
        )
        assert (row.steps, row.gain.value) == (steps, {8: 1.0, 3: 2.0}[steps])
    assert contest(results, 20) == (None, None)


def test_numbers_are_listed():
    assert [listed(some) for some in ([3], [3, 5], [3, 5, 8])] == ["3", "3 and 5", "3, 5 and 8"]
