"""Two processes do what one does: the same loss, gradient, weights, images, features."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from commands import SMALL, mmd_ddm, save_place
from memory_work import PLACES, tried
from rank_work import CONFIG, SAMPLERS, gradients, make, run

from mmd_ddm.runs import patience, ranks
from mmd_ddm.runs.launch import NAMES
from mmd_ddm.training.state import TrainingState

WORK = Path(__file__).parents[1] / "rank_work.py"
MEMORY = WORK.with_name("memory_work.py")


def error(a, b):
    return float((a - b).norm() / b.norm())


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(command, rank, world, port, cwd=None, stdout=None, slurm=False):
    """A rank as torchrun starts it, or as srun does."""
    if slurm:
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": world}
        place |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": port}
    else:
        place = dict(zip(NAMES, (rank, world, rank, "127.0.0.1", port), strict=True))
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in place.items()}},
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two ranks found; in their last run the second one is killed after iteration 5."""
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    processes = [start([str(WORK), str(folder)], rank, 2, port) for rank in range(2)]
    killed = processes[1].wait(timeout=600)
    died = time.time()
    assert killed == -signal.SIGKILL, processes[1].stderr.read()
    code = processes[0].wait(timeout=600)
    for process in processes:
        process.stderr.close()
    found = [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(2)]
    return folder, found, code, died


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_two_ranks_give_the_whole_batchs_loss_and_gradient(name, dtype, pair):
    """In micro-batches, recomputed, of a batch that two ranks cannot halve."""
    key, tolerance = f"{name} {dtype}", 1e-12 if dtype == torch.float64 else 1e-6
    expected = gradients()[key]
    for found in pair[1]:
        assert error(found[key][1:], expected[1:]) <= tolerance
        assert error(found[key][:1], expected[:1]) <= tolerance


@pytest.mark.slow
def test_a_run_of_two_ranks_is_a_run_of_one(pair, tmp_path):
    expected = run(tmp_path)
    for found in pair[1]:
        assert error(found["weights"], expected["weights"]) <= 1e-6
        assert error(found["told"], expected["told"]) <= 1e-6
        assert error(found["images"].double(), expected["images"].double()) < 1e-3
    assert len(expected["told"]) == 6 + 3
    assert torch.equal(pair[1][0]["weights"], pair[1][1]["weights"])


@pytest.mark.slow
def test_images_and_features_of_two_ranks_are_those_of_one(pair):
    """To the bit, since the batches are the same ones."""
    first, second = pair[1]
    assert torch.equal(first["images"], second["images"])
    assert torch.equal(first["bank"], second["bank"])
    assert torch.equal(first["bank"], make()[2])


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_leaves_the_last_checkpoint(pair, tmp_path):
    folder, _, code, died = pair
    assert code == 2
    when, _, message = (folder / "error.txt").read_text(encoding="utf-8").partition(" ")
    assert float(when) - died < 60
    assert "another of the 2 ranks has ended" in message
    assert "the last checkpoint is whole: repeat the command" in message
    checkpoint = folder / "killed" / "checkpoint.pt"
    assert [p.name for p in checkpoint.parent.iterdir()] == ["checkpoint.pt"]
    assert TrainingState(CONFIG, make()[0].denoiser.network, checkpoint).step == 4
    resumed = run(checkpoint.parent)
    assert error(resumed["weights"], run(tmp_path)["weights"]) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("slurm", [False, True], ids=["torchrun", "srun"])
def test_two_ranks_finetune_and_judge_on_the_command_line(slurm, tmp_path):
    save_place(tmp_path, 80)
    words = ("finetune", "base", "--data", "digits.npy", "--steps", 3, *SMALL)
    words += ("--set", "judges=random", "--set", "select.features=encoder")
    port, found = free_port(), []
    command = ["-m", "mmd_ddm", *map(str, words), "--out", "shared"]
    processes = [start(command, r, 2, port, cwd=tmp_path, slurm=slurm) for r in (0, 1)]
    for process in processes:
        assert process.wait(timeout=600) == 0, process.stderr.read()
        process.stderr.close()
    assert mmd_ddm(tmp_path, *words, "--out", "alone").code == 0
    for run_folder in ("shared", "alone"):
        record = json.loads((tmp_path / run_folder / "results.json").read_text(encoding="utf-8"))
        found.append([row["spaces"]["random"]["kid"] for row in record["rows"]])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.slow
def test_memory_that_runs_out_on_one_rank_is_tried_again_on_all():
    """Wherever it runs out: the ranks do not miss each other, and agree with one process."""
    port = free_port()
    processes = [start([str(MEMORY)], rank, 2, port, stdout=subprocess.PIPE) for rank in (0, 1)]
    told = [process.communicate(timeout=120)[0] for process in processes]
    _, *expected = tried("nowhere", fails=False)
    for lines in told:
        found = [line.split("|") for line in lines.splitlines()]
        assert [place for place, *_ in found] == list(PLACES)
        assert [int(attempts) for _, attempts, *_ in found] == [1] + [2] * (len(PLACES) - 1)
        for _, _, *values in found:
            assert list(map(float, values)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("place", [place for place in PLACES if "other" not in place][1:])
def test_memory_that_runs_out_on_the_only_rank_is_tried_again(place):
    attempts, *found = tried(place, fails=True)
    assert attempts == 1 + (place != "the sum of the gradients")  # which it has not to take
    assert found == pytest.approx(tried("nowhere", fails=False)[1:], rel=1e-6)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize(("n", "unit"), [(0, 1), (5, 1), (20, 6), (1000, 64), (3, 8)])
def test_shares_are_whole_batches_in_order(n, unit, world, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    of = ranks.shares(n, unit)
    assert [i for share in of for i in share] == list(range(n))
    assert len(of) == world
    assert len(of[0]) > 0 or n == 0
    assert all(share.start % unit == 0 for share in of if share)
    sizes = [-(-len(share) // unit) for share in of]
    assert max(sizes) - min(sizes) <= 1


def test_more_ranks_than_images_are_refused_in_one_line(tmp_path, monkeypatch):
    words = ("finetune", "fashion-mnist", "--data", "fashion-mnist", "--batch-size", 4)
    monkeypatch.setenv("WORLD_SIZE", "8")
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    for rank, lines in (("0", 1), ("5", 0)):
        monkeypatch.setenv("RANK", rank)
        done = mmd_ddm(tmp_path, *words, "--out", "new")
        assert done.code == 2
        assert len(done.err.splitlines()) == lines
        assert rank != "0" or "8 ranks cannot share a batch of 4: start at most 4" in done.err
    assert not (tmp_path / "new").exists()


def test_verbs_that_cannot_share_say_so(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, {"WORLD_SIZE": "2", "MASTER_PORT": "1"}.get(name, "0"))
    done = mmd_ddm(tmp_path, "pretrain", "--data", "x", "--out", "new")
    assert done.code == 2
    assert "pretrain works in one process, and 2 were started" in done.err


def test_a_rank_without_a_gpu_is_refused(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="rank 1 has no GPU: there are 1 here"):
        ranks.join()


def test_who_waits_for_the_others_says_so(monkeypatch, capsys):
    """A rank of two that was started alone; the library's own patience would be 20 minutes."""
    place = dict(zip(NAMES, ("0", "2", "0", "127.0.0.1", str(free_port())), strict=True))
    monkeypatch.setattr(ranks, "_PATIENCE", timedelta(milliseconds=500))
    monkeypatch.setattr(patience, "_SOON", 0.1)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    where = f"127.0.0.1:{place['MASTER_PORT']}"
    with pytest.raises(ValueError, match=f"another of the 2 ranks .* at {where}"):
        ranks.join()
    assert capsys.readouterr().err == (
        f"mmd-ddm: rank 0 is waiting for the others of 2, at {where}\n"
    )
