"""``mmd-ddm cache``: shown, and pruned."""

import os
from datetime import datetime

import pytest
from commands import CACHE, mmd_ddm

from mmd_ddm.runs.fingerprint import key_of


@pytest.fixture
def folder(tmp_path):
    for i, (kind, size) in enumerate((("scores", 100), ("images", 3 * 2**20))):
        path = tmp_path / CACHE / kind / f"{key_of(kind)}.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))
        used = datetime(2024, 5, 6 + i, 7, 8).timestamp()
        os.utime(path, (used, used))
    return tmp_path


def test_it_is_shown(folder, monkeypatch):
    done = mmd_ddm(folder, "cache")
    rows = [line.split() for line in done.out.splitlines()]
    assert done.code == 0
    day = "2024-05-06 07:08".split()
    assert ["scores", "1", "100", "bytes", *day, *day] in rows
    assert ["images", "1", "3", "MiB", "2024-05-07", "07:08", "2024-05-07", "07:08"] in rows
    assert f"3 MiB in {folder / CACHE}; the limit is 20.0 GiB" in done.out
    monkeypatch.setenv("MMD_DDM_CACHE_LIMIT", "0")
    assert mmd_ddm(folder, "cache").out.endswith("; there is no limit\n")


def test_it_is_pruned(folder):
    done = mmd_ddm(folder, "cache", "--prune", 0.001)
    assert done.code == 0
    assert "removed 2 entries, 3 MiB\n0 bytes in " in done.out
    assert list((folder / CACHE).glob("*/*")) == []
