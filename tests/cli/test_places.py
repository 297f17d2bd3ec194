"""Where results go is asked before the work, and where things are remembered is no matter."""

import sys
from pathlib import Path

import pytest
from commands import CACHE, SMALL, contents, mmd_ddm, read

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.files import alone

DATA = ("--data", "digits.npy")
VERBS = {
    "demo": (),
    "finetune": ("base", *DATA, *SMALL),
    "sample": ("base", "--steps", 3, "-n", 2),
    "evaluate": ("base", *DATA, "--steps", 3, "-n", 4),
    "bench": ("base", *DATA, "--steps", 3, "-n", 4),
    "neighbors": ("no-such-run",),
    "interpolate": ("no-such-run",),
    "report": ("no-such-run",),
    "reproduce": ("table-1", "--bundled"),
    "pretrain": (*DATA, "--iterations", 1),
    "convert": ("no-such-checkpoint.pt",),
}
PLACES = ["digits.npy/out.html"]
if sys.platform == "linux":
    PLACES.append("/proc/out.html")  # where not even root makes a file


@pytest.fixture
def idle(monkeypatch):
    """Within, no network is called and nothing is loaded from a run."""

    def work(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(Denoiser, "__call__", work)
    # Where it is used: a module that is first imported under a patch would keep it for ever.
    for user in ("copies", "interpolate"):
        monkeypatch.setattr(f"mmd_ddm.jobs.{user}.load_result", work)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_takes_nothing_is_found_before_the_work(verb, place, workplace, idle):
    before = contents(workplace)
    done = mmd_ddm(workplace, verb, *VERBS[verb], "--out", place)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("mmd-ddm: error: ")
    assert str(Path(place).parent) in line
    assert line.endswith(("give another place", "give a folder"))
    assert contents(workplace) == before


def test_what_another_process_converts_is_left_to_it(workplace, idle):
    with alone(workplace / "new.mmd-ddm.lock"):
        done = mmd_ddm(workplace, "convert", "net.pt", "--out", "new")
    assert done.code == 2
    assert done.err == (
        "mmd-ddm: error: another process is writing new: give --out a new folder\n"
    )
    assert not (workplace / "new").exists()


@pytest.mark.slow
def test_without_a_cache_evaluate_says_so_and_works(workplace):
    (workplace / CACHE).write_text("my only copy")
    words = ("evaluate", "base", *DATA, "--steps", 3, "-n", 8, "--features", "pixels")
    done = mmd_ddm(workplace, *words, "--out", "without.json")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert f"{CACHE} cannot be written" in line
    assert "$MMD_DDM_CACHE" in line
    (workplace / CACHE).unlink()
    assert mmd_ddm(workplace, *words, "--out", "with.json").code == 0
    found = [read(workplace / f"{name}.json")["rows"][0]["spaces"] for name in ("without", "with")]
    assert found[0] == found[1]
