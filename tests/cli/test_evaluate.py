"""``mmd-ddm evaluate``: the whole table in one command, and nothing computed twice."""

import collections
import contextlib

import numpy as np
import pytest
import torch
from commands import CACHE, mmd_ddm, read, save_place
from torch.nn.modules.module import register_module_forward_hook

from mmd_ddm.evaluation.metrics import density_coverage, precision_recall
from mmd_ddm.features.bank import extract
from mmd_ddm.features.registry import make_features

SPACES = ("--features", "pixels", "--features", "encoder:one.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_place(folder, 60, ("one", "two"))
    return folder


@pytest.fixture
def run(place, tmp_path):
    """``run(*words)``: the command, and the results it wrote where it wrote any."""

    def call(*words, data="digits.npy"):
        out = tmp_path / "results.json"
        steps = ("--steps", 3, "-n", 24, *words)
        done = mmd_ddm(place, "evaluate", "base", "--data", data, "--out", out, *steps)
        return done, read(out) if out.exists() else None

    return call


@contextlib.contextmanager
def network_calls():
    """Which modules were called within, and how often: what was computed."""
    found = collections.Counter()

    def count(module, inputs, _):
        if not any(torch.is_tensor(x) and x.is_meta for x in inputs):  # as when it is loaded
            found[type(module).__name__] += 1

    handle = register_module_forward_hook(count)
    try:
        yield found
    finally:
        handle.remove()


def test_one_command_prints_the_whole_table(run, place):
    done, results = run(*SPACES)
    assert done.code == 0, done.err
    names = ["KID x1000", "FD", "SWD", "precision", "recall", "density", "coverage"]
    assert all(done.out.count(name.removesuffix(" x1000")) >= 2 for name in names)
    assert results["protocol"]["precision-recall"] == "k = 3, torch-fidelity's"
    assert "cmmd" not in results["protocol"]
    scores = results["rows"][0]["spaces"]["pixels"]
    assert scores.keys() == {
        "kid", "kid_se", "fd", "swd", "swd_se", "precision", "recall", "density", "coverage",
    }  # fmt: skip
    (drawn,) = (place / CACHE / "samples").glob("*.npz")
    phi = make_features("pixels", 1)
    real = torch.from_numpy(np.load(place / "digits.npy")[:, None].copy())
    x, y = extract(torch.from_numpy(np.load(drawn)["pixels"]), phi), extract(real, phi)
    assert (scores["precision"], scores["recall"]) == precision_recall(x, y)
    assert (scores["density"], scores["coverage"]) == density_coverage(x, y)


def test_a_second_run_computes_nothing(run):
    _, first = run(*SPACES)
    with network_calls() as calls:
        done, second = run(*SPACES)
    assert done.code == 0
    assert second == first
    assert not {"UNet2DModel", "Pixels", "MultiLevel"} & calls.keys()
    # A metric or a space more: only that. Another seed: other images.
    with network_calls() as calls:
        _, more = run(*SPACES[:2], "--metrics", "fd", "--features", "random")
    assert "UNet2DModel" not in calls
    assert calls["MultiLevel"] > 0
    assert more["rows"][0]["spaces"]["pixels"]["fd"] == first["rows"][0]["spaces"]["pixels"]["fd"]
    with network_calls() as calls:
        run(*SPACES, "--seed", 5)
    assert calls["UNet2DModel"] == 3


def test_damaged_caches_are_computed_again(run, place):
    _, first = run(*SPACES)
    for kind in ("samples", "scores"):
        for path in (place / CACHE / kind).iterdir():
            path.write_bytes(path.read_bytes()[:20])
    done, second = run(*SPACES)
    assert done.code == 0, done.err
    assert [row["spaces"] for row in second["rows"]] == [row["spaces"] for row in first["rows"]]


def test_chosen_metrics_only(run):
    _, results = run(*SPACES, "--metrics", "kid", "--metrics", "density-coverage")
    for scores in results["rows"][0]["spaces"].values():
        assert scores.keys() == {"kid", "kid_se", "density", "coverage"}
    assert "fd" not in results["protocol"]


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--metrics fid": ("unknown metric 'fid'", "kid, fd, swd"),
        "--metrics is": ("is needs a space with classes",),
        "--metrics precision-recall -n 3": ("precision-recall needs at least 4", "got 3"),
        "--metrics cmmd": ("cmmd needs a clip space",),
        "--features inception:one.safetensors": ("holds no weights of Inception-V3",),
        "--features import:no.such:thing": ("cannot import no.such:thing",),
    }.items(),
)
def test_what_cannot_be_measured(words, said, run):
    done, results = run("--features", "pixels", *words.split())
    assert done.code == 2
    assert results is None
    assert len(done.err.splitlines()) == 1
    assert all(part in done.err for part in said)


def test_spaces_of_different_dimension(run, tmp_path, monkeypatch):
    """A module that gives the drawn images another dimension than the real ones."""
    (tmp_path / "drifting_space.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        return images.flatten(1)[:, : 5 - bool((images[:, 0, :, 0] == -1).all())]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done, results = run("--features", "import:drifting_space:Net", "--metrics", "kid")
    assert done.code == 2
    assert results is None
    (line,) = done.err.splitlines()
    assert "have dimension 5, those of the real images 4" in line


def test_images_are_shown_beside_a_model(place, tmp_path):
    out = tmp_path / "both.json"
    words = ("--data", "digits.npy", "--steps", 3, "-n", 24, *SPACES[:2], "--out", out)
    done = mmd_ddm(place, "evaluate", "digits.npy", "base", *words)
    assert done.code == 0, done.err
    assert "digits.npy" in done.out
    assert "? steps" not in done.out
    images, base = read(out)["rows"]
    assert images["spaces"]["pixels"]["kid"] < base["spaces"]["pixels"]["kid"]
    done = mmd_ddm(place, "evaluate", "digits.npy", *words)
    assert done.code == 2
    assert "leave out --steps" in done.err
    assert len(done.err.splitlines()) == 1
