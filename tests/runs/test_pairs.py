"""Two commands at once, in every combination: none is lost, none is mixed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = Path(__file__).parents[1] / "pairs_work.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="every command is a fork"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What became of each pair, by the place that they shared."""
    done = subprocess.run(
        [sys.executable, str(WORK), str(tmp_path_factory.mktemp("pairs"))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {"alone": [], "memo": [], "folder": []}
    for line in done.stdout.splitlines():
        where, *about = json.loads(line)
        found[where].append(about)
    return found


def test_what_is_compared_is_there(told):
    ((files,),) = told["alone"]
    assert {"out/run.json", "out/results.json", "out/log.jsonl", "out/pairs.png"} <= {
        *files["finetune"]
    }
    assert {"out/00000.png", "out/00001.png"} <= {*files["sample"]}
    for verb, made in files.items():
        assert made or verb in ("gamma", "verify", "cache"), verb


def test_on_one_cache_both_find_what_they_find_alone(told):
    assert len(told["memo"]) == 11 * 12 / 2
    for first, second, codes, errors, differing in told["memo"]:
        assert (codes, errors, differing) == ([0, 0], ["", ""], [[], []]), (first, second)


def test_in_one_folder_the_second_stops_and_the_first_is_whole(told):
    assert len(told["folder"]) == 6 * 7 / 2 + 2
    for first, second, codes, errors, differing in told["folder"]:
        assert (codes, errors[0], differing) == ([0, 2], "", [[]]), (first, second)
        (line,) = errors[1].splitlines()
        assert line.startswith("mmd-ddm: error: another process is writing "), (first, second)
        assert "wait for its end" in line
