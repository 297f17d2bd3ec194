"""What is remembered, summed by kind, and made smaller."""

import os
from pathlib import Path

import pytest

from mmd_ddm.jobs.cache import Cache, Kind, tidy
from mmd_ddm.runs.cache_folder import GIB
from mmd_ddm.runs.fingerprint import key_of

ENTRIES = {"scores": [(10, 100), (20, 300)], "features": [(40, 200)]}  # sizes, times of use


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path))
    monkeypatch.setenv("MMD_DDM_CACHE_LIMIT", "3")
    for kind, about in ENTRIES.items():
        (tmp_path / kind).mkdir()
        for size, used in about:
            path = tmp_path / kind / f"{key_of(size)}.json"
            path.write_bytes(bytes(size))
            os.utime(path, (used, used))
    return tmp_path


def test_kinds_are_summed_the_largest_first(cache):
    kinds = (Kind("features", 1, 40, 200, 200), Kind("scores", 2, 30, 100, 300))
    assert tidy() == Cache(cache, 3 * GIB, kinds, 0, 0)


@pytest.mark.parametrize(
    ("most", "left", "removed", "freed"),
    [(1, 3, 0, 0), (65 / GIB, 2, 1, 10), (25 / GIB, 1, 2, 50), (0, 0, 3, 70)],
)
def test_it_is_pruned_by_last_use(most, left, removed, freed, cache):
    found = tidy(most)
    assert (found.removed, found.freed) == (removed, freed)
    assert sum(kind.count for kind in found.kinds) == left == len(list(cache.glob("*/*")))


@pytest.mark.parametrize("most", [-1, float("nan")])
def test_less_than_nothing_is_refused(most, cache):
    with pytest.raises(ValueError, match=f"cannot prune to {most} GiB; give 0"):
        tidy(most)
    assert len(tidy().kinds) == 2


def test_nothing_is_remembered_at_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "none"))
    assert (tidy(0).folder, tidy(0).kinds) == (Path(tmp_path / "none"), ())
