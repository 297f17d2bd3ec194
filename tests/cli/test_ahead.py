"""What can be known before the work is refused before it: nothing is computed, nothing written."""

from pathlib import Path
from typing import NamedTuple

import pytest
from accelerate import tracking
from commands import NETWORK, SMALL, contents, mmd_ddm
from diffusers import UNet2DModel

from mmd_ddm.config import FinetuneConfig, PretrainConfig
from mmd_ddm.jobs import pretrain as pretrain_job
from mmd_ddm.jobs.build import load_model
from mmd_ddm.jobs.train import prepare
from mmd_ddm.models import lora
from mmd_ddm.runs import files
from mmd_ddm.runs.files import check_space, size_text
from mmd_ddm.training.state import disk_bytes

FINETUNE = ("finetune", "base", "--data", "digits.npy", *SMALL)
PRETRAIN = ("pretrain", "--data", "digits.npy", "--iterations", 1, "--batch-size", 2, *NETWORK)
REPRODUCE = (
    "reproduce", "table-1", "--model", "base", "--data", "digits.npy", "--steps", "5",
    "--inception", "encoder:judge.safetensors", "--clip", "pixels",
)  # fmt: skip


class Usage(NamedTuple):
    total: int
    used: int
    free: int


VERBS = {
    "finetune": (*FINETUNE, "--out", "new"),
    "pretrain": (*PRETRAIN, "--out", "new"),
    "sample": ("sample", "base", "-n", 1000, "--steps", 4, "--out", "new"),
    "genie-head": ("genie-head", "base", "--data", "digits.npy", "--iterations", 1),
    "reproduce": (*REPRODUCE, "--out", "new"),
}  # fmt: skip


@pytest.fixture
def full(monkeypatch):
    """A disk with this many bytes left."""

    def left(free):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda place: Usage(10**12, 10**12, free))

    return left


@pytest.fixture
def calls(monkeypatch):
    """How often a network has computed something."""
    seen = []
    forward = UNet2DModel.forward

    def counted(self, x, *args, **kwargs):
        if x.device.type != "meta":
            seen.append(len(x))
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(UNet2DModel, "forward", counted)
    return seen


_SLOW = pytest.param("reproduce", marks=pytest.mark.slow)  # features in a large space


@pytest.mark.parametrize("verb", ["finetune", "pretrain", "sample", "genie-head", _SLOW])
def test_a_full_disk_is_found_before_the_work(verb, workplace, full, calls):
    before = contents(workplace)
    full(1000)
    done = mmd_ddm(workplace, *VERBS[verb])
    assert done.code == 2, done.out
    assert "but only 1e+03 bytes are free at" in done.err
    assert "needs about" in done.err
    assert done.err.count("\n") == 1
    assert calls == []
    assert contents(workplace) == before


def test_the_estimate_is_what_a_run_writes(workplace, full):
    words = (*VERBS["pretrain"], "--set", "keep=2", "--set", "save_every=1")
    full(2**30)
    done = mmd_ddm(workplace, *words, "--set", "iterations=3")
    assert done.code == 0, done.err
    estimate = disk_bytes(load_model("new", "cpu").denoiser.network, keep=2)
    kept = [*Path("new").glob("checkpoint*.pt"), *Path("new/model").rglob("*.safetensors")]
    assert len(kept) == 3
    written = sum(path.stat().st_size for path in kept)
    assert 0.5 * written < estimate < 2 * written


def test_what_a_folder_holds_is_not_needed_again(tmp_path, full):
    full(2**20)
    check_space(tmp_path / "a" / "new", 2**20)
    with pytest.raises(ValueError, match=r"new needs about 1 MiB, but only 1 MiB are free at /"):
        check_space(tmp_path / "a" / "new", 2**20 + 1)
    (tmp_path / "checkpoint.pt").write_bytes(bytes(2**20))
    check_space(tmp_path, 2**21)
    with pytest.raises(ValueError, match="needs about 2 MiB"):
        check_space(tmp_path, 3 * 2**20)


def test_sizes_are_said_as_people_say_them():
    said = [size_text(size) for size in (12, 2048, 3 * 2**20, 1500 * 2**30)]
    assert said == ["12 bytes", "2 KiB", "3 MiB", "1,500.0 GiB"]


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
@pytest.mark.parametrize("name", ["wandb", "tensorboard", "comet_ml"])
def test_a_tracker_that_is_not_installed_is_refused_before_the_work(
    verb, name, workplace, monkeypatch
):
    before = contents(workplace)
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    words = () if name == "tensorboard" else ("--tracker", name)  # which is the default
    done = mmd_ddm(workplace, *VERBS[verb], *words)
    assert done.code == 2
    assert done.err == f"mmd-ddm: error: tracker {name} is not installed: pip install {name}\n"
    assert contents(workplace) == before


def test_python_is_told_of_a_missing_tracker_as_well(workplace, monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    config = FinetuneConfig(model="base", data="digits.npy")
    with (
        pytest.raises(ValueError, match="tracker wandb is not installed"),
        prepare(config, Path("new"), trackers=["wandb"]),
    ):
        pass
    with pytest.raises(ValueError, match="tracker wandb is not installed"):
        pretrain_job.pretrain(PretrainConfig(data="digits.npy"), Path("new"), trackers=["wandb"])


def test_a_tracker_that_cannot_begin_is_one_line(workplace, monkeypatch):
    def no_login(self, *args, **kwargs):
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setattr(tracking.TensorBoardTracker, "start", no_login)
    done = mmd_ddm(workplace, *VERBS["pretrain"])
    assert done.code == 2
    assert "tracker tensorboard cannot begin: api_key not configured (no-tty); repeat" in done.err


@pytest.mark.parametrize(("trained", "said"), [("lora", "needs peft"), ("some", "trained is all")])
def test_what_is_trained_is_known_before_features_are_computed(
    trained, said, workplace, monkeypatch, calls
):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    before = contents(workplace)
    done = mmd_ddm(workplace, *VERBS["finetune"], "--set", f"trained={trained}")
    assert done.code == 2
    assert said in done.err
    assert calls == []
    assert contents(workplace) == before


def test_an_experiment_whose_images_are_gone_stops_a_reproduction_at_its_begin(workplace, calls):
    """Not after the hours of those before it."""
    done = mmd_ddm(workplace, *VERBS["reproduce"], "--heldout", "no")
    assert done.code == 2
    assert "no" in done.err
    assert calls == []
    assert not Path("new").exists()
