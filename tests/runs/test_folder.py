"""Run folders: written once, resumed with the same settings only, never half read."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest

from mmd_ddm.runs.files import atomic_write, read_json, write_json
from mmd_ddm.runs.folder import OutputError, RunLog, describe_environment, free_folder, read_events

SETTINGS = {"steps": 5, "lr": 5e-6, "times": (800, 400, 0), "model": None}


class TestRunLog:
    def test_a_new_folder_records_the_run(self, tmp_path):
        folder = tmp_path / "runs" / "one"
        RunLog(folder, "finetune", SETTINGS)
        record = read_json(folder / "run.json")
        assert record["verb"] == "finetune"
        assert record["settings"] == {**SETTINGS, "times": [800, 400, 0]}
        assert set(record) > {"command", "python", "versions", "git"}

    def test_an_empty_folder_is_taken(self, tmp_path):
        RunLog(tmp_path, "finetune", SETTINGS)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json"]

    def test_events_come_back_in_order_and_across_resumption(self, tmp_path):
        run = RunLog(tmp_path, "finetune", SETTINGS)
        assert run.events() == []
        run.write(event="train", step=1, loss=0.25)
        again = RunLog(tmp_path, "finetune", SETTINGS)
        again.write(event="eval", step=1, space="random")
        events = again.events()
        assert [e.pop("time") > 1e9 for e in events] == [True, True]
        assert events == [
            {"event": "train", "step": 1, "loss": 0.25},
            {"event": "eval", "step": 1, "space": "random"},
        ]
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 1]

    def test_resuming_keeps_the_first_record(self, tmp_path):
        RunLog(tmp_path, "finetune", SETTINGS)
        before = (tmp_path / "run.json").read_bytes()
        RunLog(tmp_path, "finetune", SETTINGS)
        assert (tmp_path / "run.json").read_bytes() == before

    def test_other_settings_are_refused_and_named(self, tmp_path):
        RunLog(tmp_path, "finetune", SETTINGS)
        with pytest.raises(OutputError, match=r"\(lr: 5e-06 -> 0.1\); give a new folder"):
            RunLog(tmp_path, "finetune", {**SETTINGS, "lr": 0.1})
        with pytest.raises(OutputError, match=r"steps: 5 -> None"):
            RunLog(tmp_path, "finetune", {k: v for k, v in SETTINGS.items() if k != "steps"})
        with pytest.raises(OutputError, match=r"seed: None -> 3"):
            RunLog(tmp_path, "finetune", {**SETTINGS, "seed": 3})

    def test_another_verb_is_refused(self, tmp_path):
        RunLog(tmp_path, "pretrain", SETTINGS)
        with pytest.raises(OutputError, match="holds a pretrain run"):
            RunLog(tmp_path, "finetune", SETTINGS)

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("my only copy")
        with pytest.raises(OutputError, match="holds something else"):
            RunLog(tmp_path, "finetune", SETTINGS)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "run").write_text("")
        with pytest.raises(OutputError, match="run is a file; give a folder"):
            RunLog(tmp_path / "run", "finetune", SETTINGS)

    def test_a_damaged_record_is_named(self, tmp_path):
        (tmp_path / "run.json").write_text('{"verb": "fine')
        with pytest.raises(ValueError, match=r"cannot read .*run.json"):
            RunLog(tmp_path, "finetune", SETTINGS)

    def test_other_data_or_weights_are_refused_and_named(self, tmp_path):
        RunLog(tmp_path, "finetune", SETTINGS, {"data_sha256": "aa"})
        RunLog(tmp_path, "finetune", SETTINGS, {"data_sha256": "aa"})
        with pytest.raises(
            OutputError, match=r"other data or weights \(data_sha256: 'aa' -> 'bb'"
        ):
            RunLog(tmp_path, "finetune", SETTINGS, {"data_sha256": "bb"})

    def test_what_has_no_effect_may_change(self, tmp_path):
        RunLog(tmp_path, "finetune", {**SETTINGS, "keep": 1, "save_every": 50})
        RunLog(tmp_path, "finetune", {**SETTINGS, "keep": 2, "save_every": 10})

    def test_half_a_line_does_not_spoil_the_next(self, tmp_path):
        RunLog(tmp_path, "finetune", SETTINGS).write(event="train", step=1)
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write('{"event": "tra')
        run = RunLog(tmp_path, "finetune", SETTINGS)
        run.write(event="train", step=2)
        assert [event["step"] for event in read_events(tmp_path)] == [1, 2]


class TestFreeFolder:
    def test_the_folder_itself_if_it_may_be_written(self, tmp_path):
        for folder in (tmp_path / "new", tmp_path):
            assert free_folder(folder, "finetune", SETTINGS) == folder
        RunLog(tmp_path, "finetune", SETTINGS)
        assert free_folder(tmp_path, "finetune", SETTINGS) == tmp_path

    def test_a_sibling_that_the_same_words_find_again(self, tmp_path):
        run, other = tmp_path / "run", {**SETTINGS, "lr": 0.1}
        RunLog(run, "finetune", SETTINGS)
        (tmp_path / "run-2").mkdir()
        (tmp_path / "run-2" / "thesis.tex").write_text("my only copy")
        third = free_folder(run, "finetune", other)
        assert third == tmp_path / "run-3"
        RunLog(third, "finetune", other)
        assert free_folder(run, "finetune", other) == third


class TestAtomicWrite:
    def test_what_fails_leaves_the_old_and_no_trace(self, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(b"old")

        def fail():
            with atomic_write(path) as file:
                file.write(b"half of the new")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_file_and_folder_are_on_the_disk_when_it_has_its_name(self, tmp_path, monkeypatch):
        synced = []
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_ino) or fsync(d))
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
        assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]

    def test_a_full_disk_leaves_the_old(self, tmp_path):
        write_json(tmp_path / "a", {"x": 1})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_json(tmp_path / "a", {"x": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert read_json(tmp_path / "a") == {"x": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_of_two_writers_at_once_each_writes_a_whole_file(self, tmp_path):
        path = tmp_path / "a"
        with atomic_write(path) as slow:
            slow.write(b"half")
            with atomic_write(path) as fast:
                fast.write(b"the other's")
            assert path.read_bytes() == b"the other's"
            slow.write(b" and half")
        assert path.read_bytes() == b"half and half"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_a_killed_process_left_goes_after_a_day(self, tmp_path):
        code = (
            "import os, pathlib, sys; from mmd_ddm.runs.files import atomic_write\n"
            "with atomic_write(pathlib.Path(sys.argv[1])): os._exit(9)"
        )
        command = [sys.executable, "-c", code, tmp_path / "a"]
        assert subprocess.run(command, check=False).returncode == 9
        (left,) = tmp_path.iterdir()
        (tmp_path / "thesis.tmp").write_text("my only copy")
        for hours, names in ((20, {left.name, "b", "thesis.tmp"}), (30, {"b", "thesis.tmp"})):
            for path in (left, tmp_path / "thesis.tmp"):
                os.utime(path, (time.time() - hours * 3600,) * 2)
            write_json(tmp_path / "b", {})
            assert {p.name for p in tmp_path.iterdir()} == names


class TestJson:
    def test_round_trip_by_way_of_new_folders(self, tmp_path):
        path = tmp_path / "a" / "b.json"
        write_json(path, {"x": [1, 2.5, None, "ä"]})
        assert read_json(path) == {"x": [1, 2.5, None, "ä"]}
        assert [p.name for p in path.parent.iterdir()] == ["b.json"]

    def test_a_failed_write_leaves_the_old_content(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, {"x": 1})
        with pytest.raises(TypeError):
            write_json(path, {"x": object()})
        assert read_json(path) == {"x": 1}

    @pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe\x00"])
    def test_what_is_no_json_object_is_named(self, content, tmp_path):
        path = tmp_path / "a.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.json"):
            read_json(path)


def test_environment_names_every_version(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/mmd-ddm", "finetune", "--steps", "5"])
    described = describe_environment()
    assert described["command"] == ["mmd-ddm", "finetune", "--steps", "5"]
    assert described["versions"]["torch"].startswith("2.")
    assert described["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert json.loads(json.dumps(described)) == described


def test_a_machine_without_git_has_no_revision(monkeypatch):
    def missing(*args, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert describe_environment()["git"] is None


def test_reading_runs_needs_no_torch():
    code = "import sys, mmd_ddm.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
