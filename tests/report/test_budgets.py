"""What is said of one model for several numbers of steps, and that every place says it."""

import pytest
from run_folders import PRAISE, PageReader, make_budgets, make_run, said_of

from mmd_ddm.report import verdict, write_report
from mmd_ddm.report.headline import headline
from mmd_ddm.report.results import numbers, results_table
from mmd_ddm.report.runs import read_run
from mmd_ddm.report.tables import Strong

MINUS = "\N{MINUS SIGN}"
SURE = {8: (1.0, 0.1), 3: (2.0, 0.1), 5: (1.5, 0.1)}
CASES = {
    "3 steps now draw what takes the base more than 5, at most 20": SURE,
    "A gain was shown at 3 and 8 steps, of 3, 5 and 8": SURE | {5: (0.1, 0.1)},
    "No gain was shown over 3, 5 and 8 steps": dict.fromkeys(SURE, (0.1, 0.1)),
    "No real gain over 3, 5 and 8 steps": SURE | {5: (-1.0, 0.1)},
}


@pytest.mark.parametrize("finding", CASES)
def test_every_place_tells_one_finding_and_which_numbers_of_steps(finding, tmp_path):
    results = make_budgets(CASES[finding], above_fewer={8: (0.4, 0.1)})
    top, judged = headline(results), verdict(results)
    assert top.finding == finding
    assert top.budgets == (
        "One model for 3, 5 and 8 steps, each on times of its own; 8 steps draw worse than 5 in "
        "lite0 (KID x1000 higher by 400 ± 100)."
    )
    for place, words in said_of(results, tmp_path).items():
        assert finding in words, place
        if place != "report.tex":
            assert judged.sentence in words, place
            assert top.budgets in words, place
        assert bool(PRAISE.search(words)) == (judged.label == "real gain"), place


@pytest.mark.parametrize(("z", "told"), [(2.23, False), (2.25, True), (-9.0, False)])
def test_more_steps_that_draw_worse_are_told_over_all_pairs_at_once(z, told):
    """Two pairs of neighbours: one side of 2.5 % for both is z of 2.241."""
    top = headline(make_budgets(SURE, above_fewer={5: (z, 1.0), 8: (0.0, 1.0)}))
    assert ("5 steps draw worse than 3 in lite0" in top.budgets) == told
    assert ("more steps nowhere draw worse for certain" in top.budgets) != told


def test_nothing_is_said_of_numbers_of_steps_that_were_not_compared():
    assert headline(make_budgets(SURE)).budgets.endswith("each on times of its own.")


def test_the_headline_is_of_the_largest_speed_up():
    results = make_budgets(SURE)
    top = headline(results)
    assert (top.steps, top.base, top.finetuned, top.change) == (
        "3", "3272 ± 30", "1272 ± 30", f"{MINUS}61 %"
    )  # fmt: skip
    results["speedup"] |= {"finetuned_steps": 8, "beaten_steps": None}
    assert headline(results).steps == "8"


def test_the_table_has_a_line_for_each_number_of_steps():
    table = results_table(make_budgets(SURE))
    assert table.columns == [
        "space", "role", "metric", "steps", "base", "finetuned", "change", "real vs real",
        "gap closed",
    ]  # fmt: skip
    assert list(table.groups) == ["KID x1000", "FD"]
    lines = [line for line in table.groups["KID x1000"] if line[0] == "lite0"]
    floor = f"{MINUS}0.1 ± 0.2"
    assert [line[3:8] for line in lines] == [
        ["3", "3272 ± 30", "1272 ± 30", f"{MINUS}61 %", floor],
        ["5", "3272 ± 30", "1772 ± 30", f"{MINUS}46 %", floor],
        ["8", "3272 ± 30", "2272 ± 30", f"{MINUS}31 %", floor],
        ["20", "1112 ± 20", "\N{EN DASH}", "\N{EN DASH}", floor],
    ]
    assert [isinstance(line[5], Strong) for line in lines] == [True, True, True, False]


def test_console_shows_the_judges_and_page_and_files_all(tmp_path):
    results = make_budgets(SURE)
    said = said_of(results, tmp_path)
    assert "encoder" not in said["console"].partition("steps now")[0]
    run = make_run(tmp_path / "again", results)
    write_report([run], tmp_path / "again.html")
    page = PageReader(tmp_path / "again.html")
    assert "One model for 3, 5 and 8 steps" in page.words
    assert {float(row[7]) for row in numbers(read_run(run))} == {3, 5, 8, 20}
    assert "num_inference_steps=8).images # or 3, 5 steps" in said["page"]
    assert "# base in 3, 5 and 8 steps" in said["card"].replace("base/model", "base")
    assert "finetuned for these 3, 5 and 8 steps" in said["card"]
