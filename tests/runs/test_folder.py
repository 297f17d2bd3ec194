"""Run folders: written once, resumed with the same settings only, never half read."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmd_ddm.runs import files, patience
from mmd_ddm.runs.files import alone, atomic_folder, atomic_write, read_json, write_json
from mmd_ddm.runs.folder import (
    OutputError,
    RunLog,
    check_folder,
    describe_environment,
    free_folder,
    read_events,
)

SETTINGS = {"steps": 5, "lr": 5e-6, "times": (800, 400, 0), "model": None}


def begin(folder, verb="finetune", settings=SETTINGS, inputs=None):
    """Open the folder, as a run does, and close it."""
    with RunLog(folder, verb, settings, inputs):
        pass


class TestRunLog:
    def test_a_new_folder_records_the_run(self, tmp_path):
        folder = tmp_path / "runs" / "one"
        begin(folder)
        record = read_json(folder / "run.json")
        assert record["verb"] == "finetune"
        assert record["settings"] == {**SETTINGS, "times": [800, 400, 0]}
        assert set(record) > {"command", "python", "versions", "git"}

    def test_an_empty_folder_is_taken(self, tmp_path):
        begin(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json"]

    def test_events_come_back_in_order_and_across_resumption(self, tmp_path):
        with RunLog(tmp_path, "finetune", SETTINGS) as run:
            assert run.events() == []
            run.write(event="train", step=1, loss=0.25)
        with RunLog(tmp_path, "finetune", SETTINGS) as again:
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
        begin(tmp_path)
        before = (tmp_path / "run.json").read_bytes()
        begin(tmp_path)
        assert (tmp_path / "run.json").read_bytes() == before

    def test_other_settings_are_refused_and_named(self, tmp_path):
        begin(tmp_path)
        with pytest.raises(OutputError, match=r"\(lr: 5e-06 -> 0.1\); give a new folder"):
            begin(tmp_path, settings={**SETTINGS, "lr": 0.1})
        with pytest.raises(OutputError, match=r"steps: 5 -> None"):
            begin(tmp_path, settings={k: v for k, v in SETTINGS.items() if k != "steps"})
        with pytest.raises(OutputError, match=r"seed: None -> 3"):
            begin(tmp_path, settings={**SETTINGS, "seed": 3})

    def test_another_verb_is_refused(self, tmp_path):
        begin(tmp_path, "pretrain")
        with pytest.raises(OutputError, match="holds a pretrain run"):
            begin(tmp_path)

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("my only copy")
        with pytest.raises(OutputError, match="holds something else"):
            begin(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "run").write_text("")
        with pytest.raises(OutputError, match="run is a file; give a folder"):
            begin(tmp_path / "run")
        with pytest.raises(
            ValueError, match=r"one cannot be written: .*run is a file; give a folder"
        ):
            begin(tmp_path / "run" / "one")

    def test_a_damaged_record_is_named(self, tmp_path):
        (tmp_path / "run.json").write_text('{"verb": "fine')
        with pytest.raises(ValueError, match=r"cannot read .*run.json"):
            begin(tmp_path)

    def test_other_data_or_weights_are_refused_and_named(self, tmp_path):
        begin(tmp_path, inputs={"data_sha256": "aa"})
        begin(tmp_path, inputs={"data_sha256": "aa"})
        with pytest.raises(
            OutputError, match=r"other data or weights \(data_sha256: 'aa' -> 'bb'"
        ):
            begin(tmp_path, inputs={"data_sha256": "bb"})

    def test_what_has_no_effect_may_change(self, tmp_path):
        begin(tmp_path, settings={**SETTINGS, "keep": 1, "save_every": 50})
        begin(tmp_path, settings={**SETTINGS, "keep": 2, "save_every": 10})

    def test_half_a_line_does_not_spoil_the_next(self, tmp_path):
        with RunLog(tmp_path, "finetune", SETTINGS) as run:
            run.write(event="train", step=1)
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write('{"event": "tra')
        with RunLog(tmp_path, "finetune", SETTINGS) as run:
            run.write(event="train", step=2)
        assert [event["step"] for event in read_events(tmp_path)] == [1, 2]

    def test_a_run_started_twice_stops_and_leaves_the_first_alone(self, tmp_path):
        """Whether it is asked before anything slow or as it begins; afterwards it may go on."""
        busy = f"another process is writing {tmp_path}: wait for its end, or give a new folder"
        with RunLog(tmp_path, "finetune", SETTINGS) as run:
            before = {path: path.read_bytes() for path in tmp_path.iterdir()}
            for ask in (begin, check_folder, free_folder):
                with pytest.raises(ValueError, match=f"^{re.escape(busy)}$"):
                    ask(tmp_path, "finetune", SETTINGS)
            assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
            run.write(event="train", step=1)
        begin(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "run.json"]

    def test_ranks_that_cannot_share_a_verb_are_refused_in_the_library_too(
        self, tmp_path, monkeypatch
    ):
        for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match="pretrain works in one process, and 2 were started"):
            begin(tmp_path, "pretrain")
        begin(tmp_path, "finetune")  # which the first one writes
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_fails_gives_its_folder_back(self, tmp_path):
        for failure in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(failure), RunLog(tmp_path, "finetune", SETTINGS):
                raise failure
        with pytest.raises(OutputError, match="other data"):
            begin(tmp_path, inputs={"data_sha256": "bb"})
        begin(tmp_path)

    def test_what_is_killed_before_its_record_may_begin_again(self, tmp_path):
        """The lock of a killed process is no lock, and half a record is nobody's."""
        code = (
            "import os, pathlib, sys\nfrom mmd_ddm.runs import files, folder\n"
            "files.os.fsync = lambda _: os._exit(9)\n"
            "folder.RunLog(pathlib.Path(sys.argv[1]), 'finetune', {}).__enter__()"
        )
        command = [sys.executable, "-c", code, tmp_path]
        assert subprocess.run(command, check=False).returncode == 9
        assert {path.suffix for path in tmp_path.iterdir()} == {".lock", ".tmp"}
        begin(tmp_path)
        assert read_json(tmp_path / "run.json")["settings"]["steps"] == 5

    @pytest.mark.skipif(sys.platform != "linux", reason="a place where nobody can write")
    def test_where_nothing_can_be_written_is_found_before_the_work(self):
        with pytest.raises(ValueError, match=r"/proc/new/run cannot be written: /proc: .*; give"):
            check_folder(Path("/proc/new/run"), "finetune", SETTINGS)


class TestFreeFolder:
    def test_the_folder_itself_if_it_may_be_written(self, tmp_path):
        for folder in (tmp_path / "new", tmp_path):
            assert free_folder(folder, "finetune", SETTINGS) == folder
        begin(tmp_path)
        assert free_folder(tmp_path, "finetune", SETTINGS) == tmp_path

    def test_a_sibling_that_the_same_words_find_again(self, tmp_path):
        run, other = tmp_path / "run", {**SETTINGS, "lr": 0.1}
        begin(run)
        (tmp_path / "run-2").mkdir()
        (tmp_path / "run-2" / "thesis.tex").write_text("my only copy")
        third = free_folder(run, "finetune", other)
        assert third == tmp_path / "run-3"
        begin(third, settings=other)
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


class TestAtomicFolder:
    """A model that is written again: the old one, or the new one, at any moment."""

    def write(self, path, content):
        with atomic_folder(path) as folder:
            (folder / "part").mkdir()
            (folder / "part" / "a").write_text(content)

    def found(self, place):
        """The content under each name that is not a killed process's half."""
        whole = [path for path in place.iterdir() if path.suffix != ".tmp"]
        return {path.name: (path / "part" / "a").read_text() for path in whole}

    def test_the_new_one_takes_the_name(self, tmp_path):
        for content in ("old", "new"):
            self.write(tmp_path / "model", content)
            assert self.found(tmp_path) == {"model": content}
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("moves", [0, 1])
    def test_what_fails_leaves_the_old_and_no_trace(self, moves, tmp_path, monkeypatch):
        self.write(tmp_path / "model", "old")
        replace, made = Path.replace, []

        def fail(path, target):
            made.append(target)
            if len(made) == moves + 1:
                raise OSError
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match=r"^$"):
            self.write(tmp_path / "model", "new")
        assert self.found(tmp_path) == {"model": "old"}
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize(
        ("moves", "left"),
        [(0, ("model", "old")), (1, ("model.before", "old")), (2, ("model", "new"))],
    )
    def test_a_kill_loses_nothing(self, moves, left, tmp_path):
        self.write(tmp_path / "model", "old")
        code = (
            "import os, pathlib, sys; from mmd_ddm.runs.files import atomic_folder\n"
            "moves, replace = [], pathlib.Path.replace\n"
            "def die_after(path, target):\n"
            "    len(moves) == int(sys.argv[2]) and os._exit(9)\n"
            "    moves.append(replace(path, target))\n"
            "    len(moves) == 2 and os._exit(9)\n"
            "pathlib.Path.replace = die_after\n"
            "with atomic_folder(pathlib.Path(sys.argv[1])) as folder:\n"
            "    (folder / 'part').mkdir()\n"
            "    (folder / 'part' / 'a').write_text('new')\n"
        )
        command = [sys.executable, "-c", code, tmp_path / "model", str(moves)]
        assert subprocess.run(command, check=False).returncode == 9
        assert left in self.found(tmp_path).items()
        self.write(tmp_path / "model", "third")
        assert self.found(tmp_path) == {"model": "third"}


class TestAlone:
    def test_who_waits_says_so_and_comes_next(self, tmp_path, monkeypatch, capfd):
        monkeypatch.setattr(patience, "_SOON", 0.02)
        lock, came = tmp_path / "a.lock", []

        def come():
            with alone(lock):
                came.append(1)

        second = threading.Thread(target=come)
        with alone(lock):
            second.start()
            said, until = "", time.monotonic() + 10
            while not said and time.monotonic() < until:
                time.sleep(0.01)
                said = capfd.readouterr().err
            assert came == []
        second.join()
        assert said == f"mmd-ddm: waiting for the process that has {lock}\n"
        assert came == [1]
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_without_locks_keeps_nobody_out(self, tmp_path, monkeypatch):
        """Some network disks; what is there is left there."""

        def refuse(self):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(files.FileLock, "acquire", refuse)
        (tmp_path / "a.lock").touch()
        with alone(tmp_path / "a.lock", "busy"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


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
