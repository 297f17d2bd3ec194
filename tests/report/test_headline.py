"""What is said of a run is said alike, and holds, wherever it is said."""

import pytest
from run_folders import PRAISE, make_results, said_of

from mmd_ddm.report import verdict

CASES = {
    "real gain": {},
    "gamed": {"lite0": (3.9, 0.02)},
    "worse": {"lite0": (3.9, 0.02), "encoder": (0.06, 0.001)},
    "not resolved": {"lite0": (3.27, 0.3)},
    "not judged": {"lite0": (1.12, 0.0)},
}


@pytest.mark.parametrize("searched", [{}, {"base_steps": None}, {"beaten_steps": None}])
@pytest.mark.parametrize("label", CASES)
def test_every_place_tells_one_finding_and_one_verdict(label, searched, tmp_path):
    results = make_results(**CASES[label])
    results["speedup"] |= searched
    judged = verdict(results)
    assert judged.label == label
    said = said_of(results, tmp_path)
    headings = {
        place: [text for text in FINDINGS if text in words] for place, words in said.items()
    }
    assert len({tuple(found) for found in headings.values()}) == 1, headings
    assert len(headings["console"]) == 1
    for place, words in said.items():
        if place != "report.tex":
            assert judged.sentence in words, place
        if label != "real gain":
            assert not PRAISE.search(words), place


FINDINGS = (
    "5 steps now draw what takes the base more than 10, at most 20",
    "5 steps now beat the base's 10, about as good as its 20",
    "The base draws better in 5 steps: no speed-up",
    "5 steps draw about as well as the base's 5: no speed-up",
    "No real gain at 5 steps",
    "No gain was shown at 5 steps",
)
