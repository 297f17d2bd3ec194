"""The runs under a folder, a line each."""

import json

import pytest
from run_folders import make_run

from mmd_ddm.report.listing import list_runs


def write_run(folder, verb, settings, *events):
    folder.mkdir(parents=True)
    about = {"verb": verb, "settings": settings}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))


def test_a_line_a_run_with_its_steps_verdict_kid_and_size(tmp_path):
    make_run(tmp_path / "deep" / "done")
    chain = {"steps": 5}
    settings = {"iterations": 140, "chain": chain, "budgets": [3, 5]}
    write_run(tmp_path / "half", "finetune", settings, {"event": "train", "step": 20})
    write_run(tmp_path / "own", "pretrain", {"iterations": 9}, {"event": "done"})
    write_run(tmp_path / "images", "sample", {})
    (tmp_path / "half" / "checkpoint.pt").write_bytes(bytes(3 * 2**20))
    found = [line[:-1] for line in list_runs(tmp_path).lines]
    assert found == [
        ["deep/done", "finetune", "5", "real gain", "lite0", "3272 ± 30", "1120 ± 20"],
        ["half", "finetune", "3, 5", "20 of 140 iterations", "", "", ""],
        ["own", "pretrain", "", "finished", "", "", ""],
    ]
    assert list_runs(tmp_path).lines[1][-1] == "3 MiB"


def test_where_no_run_is(tmp_path):
    with pytest.raises(ValueError, match="holds no run of finetune or pretrain"):
        list_runs(tmp_path)
    with pytest.raises(ValueError, match="none is no folder"):
        list_runs(tmp_path / "none")
