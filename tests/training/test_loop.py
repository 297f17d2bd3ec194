"""The training loop under faults: bad numbers, signals, full disks, damaged and foreign states."""

import math
import os
import resource
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from estimates import estimate
from torch import nn
from torch.utils._pytree import tree_leaves

from mmd_ddm.config import PretrainConfig
from mmd_ddm.maths.random import generator
from mmd_ddm.training.loop import train
from mmd_ddm.training.state import TrainingState, load_state, save_state

CONFIG = PretrainConfig(iterations=8, lr=0.1, ema_decay=0.5, save_every=2)


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def run(config, path, bad=(), at=None, pause_at=None):
    """Train on named draws; the calls of ``bad`` are not finite, ``at`` is called before each."""
    module, events, calls = network(), [], count(1)
    state = TrainingState(config, module, path)

    def loss_at(step):
        if at:
            at(step)
        x = torch.randn((4, 3), generator=generator(0, 0, step, "test"))
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        return loss * math.nan if next(calls) in bad else loss

    def after(update):
        events.append({"event": "train", **vars(update)})
        return update.step == pause_at

    def note(**event):
        events.append(event)

    done = train(state, loss_at, lambda step: config.lr, after, note)
    return done, weights(module), events


def faults(events):
    return [event["message"] for event in events if event["event"] == "fault"]


def steps(events):
    return [event["step"] for event in events if event["event"] == "train"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pt"


# Bad numbers


def test_a_bad_iteration_is_skipped_and_told(path, tmp_path):
    _, expected, _ = run(replace(CONFIG, iterations=1), tmp_path / "one.pt")
    done, trained, events = run(replace(CONFIG, iterations=3), path, bad=(2, 3))
    assert done
    assert torch.equal(trained, expected)
    assert faults(events) == [
        f"iteration {i} skipped: its loss or gradient is not finite" for i in (2, 3)
    ]
    assert [event["step"] for event in events if event["event"] == "fault"] == [2, 3]


def test_an_infinite_loss_is_skipped_though_its_gradient_is_finite(path):
    module = network()
    state = TrainingState(CONFIG, module, path)
    before = weights(module)
    loss = state.differentiate(lambda: module(torch.ones(1, 3)).sum() + math.inf)
    state.update(loss, 0.1)
    assert torch.equal(weights(module), before)
    assert state.bad_steps == 1


def test_three_in_a_row_return_to_the_last_good_state_with_a_smaller_rate(path, tmp_path):
    """Saved at 2; 4, 5 and 6 are bad: 3 to 8 are done at a tenth of the rate."""
    done, trained, events = run(CONFIG, path, bad=(4, 5, 6))
    assert done
    assert steps(events) == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8]
    assert faults(events)[-1].endswith(
        "the third in a row: back to iteration 2, with lr times 0.1"
    )
    run(replace(CONFIG, iterations=2), tmp_path / "again.pt")
    _, expected, _ = run(replace(CONFIG, lr=0.01), tmp_path / "again.pt")
    assert torch.equal(trained, expected)


def test_the_smaller_rate_outlives_a_pause(path, tmp_path):
    """Paused as soon as it is back at 2, and gone on from there: as if in one go."""
    _, expected, _ = run(CONFIG, tmp_path / "whole.pt", bad=(4, 5, 6))
    assert run(CONFIG, path, bad=(4, 5, 6), pause_at=6)[0] is False
    done, trained, events = run(CONFIG, path)
    assert done
    assert steps(events) == [3, 4, 5, 6, 7, 8]
    assert torch.equal(trained, expected)


def test_two_more_after_the_return_end_nothing(path):
    done, _, events = run(CONFIG, path, bad=(4, 5, 6, 7, 8))
    assert done
    assert steps(events) == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8]


def test_apart_they_do_not_add_up(path):
    done, _, events = run(CONFIG, path, bad=(1, 2, 4, 5, 7, 8))
    assert done
    assert steps(events) == list(range(1, 9))


@pytest.mark.parametrize("bad", [(4, 5, 6, 8, 9, 10), (4, 5, 6, 12, 13, 14), range(1, 99)])
def test_the_second_time_ends_the_run_and_the_state_is_good(bad, path):
    with pytest.raises(ValueError, match=r"3 times in a row, again at 0.1 of lr 0.1: lower lr"):
        run(replace(CONFIG, iterations=20), path, bad=bad)
    _, trained, _ = run(replace(CONFIG, iterations=20), path)
    assert trained.isfinite().all()


def test_nothing_is_saved_between_bad_iterations(path):
    """Killed after the second bad one: what is on the disk is from before the first."""

    def kill(step):
        if step == 6:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(replace(CONFIG, save_every=1), path, bad=(5, 6), at=kill)
    assert TrainingState(CONFIG, network(), path).step == 4


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_iteration_and_the_run_goes_on_from_there(number, path, tmp_path):
    _, expected, _ = run(CONFIG, tmp_path / "whole.pt")
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(step):
        if step == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run(replace(CONFIG, save_every=100), path, at=interrupt)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert TrainingState(CONFIG, network(), path).step == 3
    _, trained, events = run(CONFIG, path)
    assert steps(events) == [4, 5, 6, 7, 8]
    assert torch.equal(trained, expected)


def test_a_second_signal_does_not_wait(path, capsys):
    def twice(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it did wait")

    with pytest.raises(KeyboardInterrupt):
        run(replace(CONFIG, save_every=100), path, at=twice)
    assert "again to stop at once" in capsys.readouterr().err
    assert TrainingState(CONFIG, network(), path).step == 0


def test_a_signal_in_the_last_iteration_changes_nothing(path):
    done, _, _ = run(
        CONFIG, path, at=lambda step: step == 7 and os.kill(os.getpid(), signal.SIGTERM)
    )
    assert done


def test_a_pause_saves(path, tmp_path):
    _, expected, _ = run(CONFIG, tmp_path / "whole.pt")
    assert run(CONFIG, path, pause_at=3)[0] is False
    assert TrainingState(CONFIG, network(), path).step == 3
    assert torch.equal(run(CONFIG, path)[1], expected)


# Checkpoints


def test_what_is_saved_is_all_that_matters(path, tmp_path):
    """A state that is loaded and saved again is the same to the bit."""
    run(CONFIG, path, pause_at=5)
    state = TrainingState(CONFIG, network(), path)
    state.consider(estimate(0.25))
    state.save()
    again = TrainingState(CONFIG, network(), path)
    again.path = tmp_path / "again.pt"
    again.save()
    one, other = (torch.load(p, weights_only=True) for p in (path, again.path))
    parts, again = tree_leaves(one), tree_leaves(other)
    assert len(parts) > 10
    for a, b in zip(parts, again, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert one["best"]["kid"] == 0.25


def test_older_states_are_kept_if_asked_for(path):
    config = replace(CONFIG, save_every=1, keep=3)
    run(config, path)
    names = {p.name: torch.load(p, weights_only=True)["step"] for p in path.parent.iterdir()}
    assert names == {"checkpoint.pt": 8, "checkpoint.1.pt": 7, "checkpoint.2.pt": 6}


def test_a_crash_between_two_names_costs_nothing(path):
    """The old state has been put aside, the new one has not its name yet."""
    config = replace(CONFIG, save_every=1, keep=2)
    _, expected, _ = run(config, path)
    path.unlink()
    state = TrainingState(config, network(), path)
    assert state.step == 7
    _, trained, events = run(config, path)
    assert steps(events) == [8]
    assert torch.equal(trained, expected)


def test_the_newest_of_many_is_found_by_its_number(path):
    for step in range(12):
        save_state(path, {"step": step}, keep=12)
    for name in ("checkpoint.pt", "checkpoint.1.pt"):
        (path.parent / name).unlink()
    assert load_state(path) == {"step": 9}


@contextmanager
def full_disk():
    """No file may grow beyond a few bytes, as far as this process goes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_state(path):
    run(CONFIG, path, pause_at=4)
    before = path.read_bytes()
    with full_disk(), pytest.raises(OSError, match="File too large"):
        run(CONFIG, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_became_read_only_leaves_the_last_state():
    with tempfile.TemporaryDirectory() as name:
        path, user = Path(name) / "checkpoint.pt", os.geteuid()
        run(CONFIG, path, pause_at=4)
        before = path.read_bytes()
        path.parent.chmod(0o555)
        if user == 0:  # whom nothing is forbidden
            os.chown(path.parent, 65534, -1)
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=r"checkpoint\.pt\..*tmp"):
                run(CONFIG, path)
        finally:
            os.seteuid(user)
            path.parent.chmod(0o755)
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_is_found_before_the_first_iteration(path):
    with full_disk(), pytest.raises(OSError, match="File too large"):
        run(CONFIG, path, at=lambda step: pytest.fail("it trained"))


class Evil:
    """Pickled, it makes a file when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_state_that_would_run_code_is_refused(path, tmp_path):
    for content in (Evil(tmp_path / "ran"), {"step": 0, "network": Evil(tmp_path / "ran")}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="pickled code is never run"):
            TrainingState(CONFIG, network(), path)
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04" + bytes(60)])
def test_a_damaged_state_is_refused_and_left(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot resume from .*checkpoint.pt: it is damaged"):
        run(CONFIG, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, torch.zeros(3)], ids=repr)
def test_what_is_no_state_is_refused(content, path):
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint.pt.* no training state"):
        run(CONFIG, path)


def test_the_state_of_another_network_is_refused(path):
    TrainingState(CONFIG, nn.Linear(4, 1), path).save()
    with pytest.raises(ValueError, match="is no training state of this network") as caught:
        run(CONFIG, path)
    assert "\n" not in str(caught.value)
