"""Times searched for a model, from the command line on."""

import re

import pytest
from commands import mmd_ddm

import mmd_ddm as mmd


@pytest.mark.parametrize("rule", ["gits", "elbo", "arctan"])
def test_a_list_that_other_verbs_take(rule, workplace):
    words = ("times", "base", "--steps", "2,3", "--rule", rule, "--data", "digits.npy", "-n", "8")
    done = mmd_ddm(workplace, *words)
    assert done.code == 0, done.out
    lists = dict(re.findall(r"(\d): --times ([\d.,]+)", done.out))
    assert [len(lists[k].split(",")) for k in ("2", "3")] == [2, 3]
    drawn = mmd_ddm(
        workplace, "sample", "base", "-n", "2", "--times", lists["3"], "--out", "drawn"
    )
    assert drawn.code == 0, drawn.out
    assert mmd_ddm(workplace, *words).out.endswith(lists["3"] + "\n")


def test_what_is_refused(workplace):
    with pytest.raises(ValueError, match="rule is one of gits, elbo, arctan; got 'ays'"):
        mmd.search_times("base", [5], rule="ays")
    with pytest.raises(ValueError, match="has 1 to 4 leaps; got 5"):
        mmd.search_times("base", [5], grid=4, n=2)
