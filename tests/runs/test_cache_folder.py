"""The folder of what is remembered: its place, its limit, what goes first, what never goes."""

import math
import os
import time
from pathlib import Path

import pytest

from mmd_ddm.runs.cache_folder import GIB, cache_dir, cache_limit, entries, prune

KEYS = [f"{i:032x}" for i in range(4)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Four entries of 100 bytes, the last one used the longest ago."""
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path))
    (tmp_path / "scores").mkdir()
    for i, key in enumerate(KEYS):
        path = tmp_path / "scores" / f"{'readable-' * i}{key}.json"
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - 100 * i,) * 2)
    return tmp_path


def kept():
    return [KEYS.index(entry.path.stem[-32:]) for entry in entries()]


def test_the_default_place_is_in_the_home(monkeypatch):
    monkeypatch.delenv("MMD_DDM_CACHE", raising=False)
    assert cache_dir() == Path.home() / ".cache" / "mmd-ddm"


def test_the_limit_is_in_gib(monkeypatch):
    monkeypatch.delenv("MMD_DDM_CACHE_LIMIT", raising=False)
    assert cache_limit() == 20 * GIB
    for text, limit in (("0.5", GIB / 2), ("0", math.inf)):
        monkeypatch.setenv("MMD_DDM_CACHE_LIMIT", text)
        assert cache_limit() == limit
    for text in ("-1", "nan", "much", ""):
        monkeypatch.setenv("MMD_DDM_CACHE_LIMIT", text)
        with pytest.raises(ValueError, match=f"MMD_DDM_CACHE_LIMIT is '{text}'; give a number"):
            cache_limit()


@pytest.mark.parametrize(
    ("most", "left"), [(math.inf, [3, 2, 1, 0]), (250, [1, 0]), (200, [1, 0]), (0, [])]
)
def test_least_recently_used_goes_first(most, left, cache):
    assert kept() == [3, 2, 1, 0]
    assert sum(entry.size for entry in prune(most)) == 400 - 100 * len(left)
    assert kept() == left


def test_what_is_spared_stays(cache):
    prune(100, spare=entries()[0].path)
    assert kept() == [3]


def test_only_entries_go(cache):
    own = ["thesis.tex", "scores/notes.txt", f"{KEYS[0]}.json", f"scores/{KEYS[0]}.d/x"]
    for name in own:
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text("mine")
    prune(0)
    assert kept() == []
    assert all((cache / name).is_file() for name in own)


def test_leftovers_of_killed_processes_go_after_a_day(cache):
    left = [f"{KEYS[0]}.json.12-0123abcd.tmp", f"{KEYS[0]}.json.lock"]
    for name in left:
        (cache / "scores" / name).touch()
    prune(0)
    assert sorted(os.listdir(cache / "scores")) == left
    for name in left:
        os.utime(cache / "scores" / name, (time.time() - 90_000,) * 2)
    prune(0)
    assert os.listdir(cache / "scores") == []


def test_no_folder_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "none"))
    assert entries() == prune(0) == []
    assert not (tmp_path / "none").exists()
