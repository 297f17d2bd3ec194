"""What was computed before: once, whole, by one process of many."""

import errno
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mmd_ddm.runs import cache_folder, files, store
from mmd_ddm.runs.cache_folder import cache_dir
from mmd_ddm.runs.files import write_json
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.store import remembered, remembered_arrays, remembered_file

WORK = Path(__file__).parents[1] / "store_work.py"
KEY = key_of("x")
VALUE = {"kid": 0.1, "of": [1, None], "nan": float("inf")}
ARRAYS = {"pixels": np.arange(6, dtype=np.uint8).reshape(2, 3), "speed": np.array(1.5)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse():
    raise AssertionError("computed again")


def read_mapped(path):
    return np.memmap(path, np.uint8, "r").reshape(-1, 3)


def map_rows(compute):
    """Rows of three bytes, saved and mapped."""
    save = lambda file, rows: file.write(bytes(rows))  # noqa: E731
    return remembered_file("rows", f"{KEY}.uint8", compute, save, read_mapped, together=False)


def test_json_is_computed_once():
    assert remembered("scores", KEY, lambda: VALUE) == VALUE
    assert remembered("scores", KEY, refuse) == VALUE
    with pytest.raises(AssertionError, match="computed again"):
        remembered("scores", key_of("y"), refuse)


def test_the_first_answer_is_that_of_the_memory():
    assert remembered("scores", KEY, lambda: {"a": (1, 2)}) == {"a": [1, 2]}


def test_arrays_are_computed_once():
    for compute in (lambda: ARRAYS, refuse):
        found = remembered_arrays("samples", KEY, compute)
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


def test_a_file_is_computed_once_and_mapped():
    for compute in (lambda: range(6), refuse):
        rows = map_rows(compute)
        assert isinstance(rows, np.memmap)
        assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("damaged", [b"", b"{", b"PK\x03\x04" + bytes(40), bytes(100)])
def test_damaged_entries_are_computed_again(damaged, cache):
    def ask():
        assert remembered("scores", KEY, lambda: VALUE) == VALUE
        assert remembered_arrays("samples", KEY, lambda: ARRAYS).keys() == ARRAYS.keys()
        assert len(map_rows(lambda: range(6))) == 2

    ask()
    for path in cache.glob("*/*"):
        path.write_bytes(damaged)
    ask()
    assert remembered("scores", KEY, refuse) == VALUE
    assert map_rows(refuse).shape == (2, 3)


def test_what_cannot_be_saved_leaves_nothing_behind(cache):
    with pytest.raises(TypeError):
        remembered("scores", KEY, lambda: {"x": object()})
    assert list((cache / "scores").iterdir()) == []


def test_reading_is_using(cache):
    remembered("scores", KEY, lambda: VALUE)
    path = cache / "scores" / f"{KEY}.json"
    os.utime(path, (0, 0))
    remembered("scores", KEY, refuse)
    assert time.time() - path.stat().st_mtime < 60


def test_over_the_limit_the_least_recently_used_goes(cache, monkeypatch):
    keys = [key_of(i) for i in range(3)]
    for age, key in enumerate(keys):
        remembered_arrays("samples", key, lambda: {"x": np.zeros(1000, np.uint8)})
        os.utime(cache / "samples" / f"{key}.npz", (1000 + age,) * 2)
    remembered_arrays("samples", keys[0], refuse)  # which is therefore no longer the oldest
    monkeypatch.setenv("MMD_DDM_CACHE_LIMIT", str(3000 / 2**30))
    remembered("scores", KEY, lambda: VALUE)
    left = {path.stem for path in cache.glob("*/*")}
    assert left == {keys[0], keys[2], KEY}


def test_what_is_larger_than_the_limit_can_be_had_and_stays_mapped(monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE_LIMIT", "1e-9")
    rows = map_rows(lambda: range(6))
    remembered("scores", KEY, lambda: VALUE)
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert map_rows(lambda: range(3)).tolist() == [[0, 1, 2]]  # it was gone from the disk


def nowhere(monkeypatch):
    """Neither a home nor another folder."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("MMD_DDM_CACHE", "")
    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr(cache_folder, "_without", {})


def in_a_file(monkeypatch):
    Path(os.environ["MMD_DDM_CACHE"]).write_text("my only copy")


def on_a_full_disk(monkeypatch):
    """It can be read, and was used before, and takes no more."""
    remembered("scores", key_of("before"), lambda: VALUE)
    write, full = files.atomic_write, cache_dir()

    @contextmanager
    def atomic_write(path):
        with write(path) as file:
            yield file
            if full in path.parents:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "atomic_write", atomic_write)


@pytest.mark.parametrize("unusable", [nowhere, in_a_file, on_a_full_disk])
def test_where_nothing_can_be_remembered_the_process_does_by_itself(unusable, monkeypatch, capfd):
    unusable(monkeypatch)
    for compute in (lambda: VALUE, refuse):
        assert remembered("scores", KEY, compute) == VALUE
    for compute in (lambda: ARRAYS, refuse):
        assert remembered_arrays("samples", KEY, compute).keys() == ARRAYS.keys()
    for compute in (lambda: range(6), refuse):
        assert map_rows(compute).shape == (2, 3)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("mmd-ddm: ")
    assert line.endswith("unless $MMD_DDM_CACHE names a folder that can be written")


def test_a_job_that_keeps_what_it_makes_keeps_it_there_or_fails(tmp_path):
    (tmp_path / "out").write_text("my only copy")
    with pytest.raises(OSError, match="out"):
        remembered("cells", KEY, lambda: VALUE, root=tmp_path / "out")


def start(*words, **environment):
    return subprocess.Popen(
        [sys.executable, str(WORK), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_of_two_processes_one_computes_each_entry(cache):
    """Sixty entries, wanted by both at the same moments."""
    begin = time.time() + 5
    processes = [start("race", begin) for _ in range(2)]
    computed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(computed[0] + computed[1], key=int) == [str(i) for i in range(60)]
    assert len(list((cache / "samples").iterdir())) == 60


def test_the_lock_of_a_killed_process_goes_with_it(cache):
    process = start("hold", KEY)
    assert process.stdout.readline() == "computing\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert [path.suffix for path in (cache / "scores").iterdir()] == [".lock"]
    assert remembered("scores", KEY, lambda: VALUE) == VALUE
    assert [path.suffix for path in (cache / "scores").iterdir()] == [".json"]


def share(*caches):
    """What two ranks say who remember together, each on a machine of its own or both on one."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    several = len({*caches}) > 1
    processes = [
        start("share", KEY, **place, RANK=str(rank), LOCAL_RANK="0" if several else str(rank),
              MMD_DDM_CACHE=str(cache))
        for rank, cache in enumerate(caches)
    ]  # fmt: skip
    return [process.communicate(timeout=120)[0].split() for process in processes]


def test_of_several_ranks_all_compute_or_none_does(tmp_path):
    """Though the first one's machine remembers already."""
    caches = [tmp_path / f"machine{rank}" for rank in range(2)]
    write_json(caches[0] / "scores" / f"{KEY}.json", {"rank": "old"})
    assert share(*caches) == [["json", "arrays", f"{rank}", f"{rank}", "1.0"] for rank in (0, 1)]
    for cache in caches:
        assert sorted(path.suffix for path in cache.glob("*/*")) == [".json", ".npz"]


@pytest.mark.slow
def test_ranks_that_cannot_remember_remember_each_by_itself(cache):
    """Though only the first of them has tried to."""
    cache.write_text("my only copy")
    assert share(cache, cache) == [["json", "arrays", f"{r}", f"{r}", "1.0"] for r in (0, 1)]


def test_of_the_ranks_of_one_machine_the_first_one_saves(cache):
    assert share(cache, cache) == [["json", "arrays", "0", "0", "1.0"]] * 2
