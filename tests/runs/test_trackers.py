"""Trackers get the numbers of the log, and no run begins with one that cannot be had."""

import pytest
from accelerate import tracking as accelerate_tracking
from commands import mmd_ddm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmd_ddm.runs.trackers import check_trackers, tracked

EVENTS = [
    {"event": "train", "step": 1, "loss": 0.5, "grad_norm": 2.0, "seconds": 9.0},
    {"event": "eval", "step": 1, "kid": 0.25, "kid_se": 0.125, "best": True, "space": "random"},
    {"event": "fault", "step": 1, "message": "skipped"},
    {"event": "train", "step": 2, "loss": -0.25, "grad_norm": 1.0, "seconds": 9.0},
]


def test_tensorboard_reads_what_was_written(tmp_path):
    settings = {"lr": 1e-4, "chain": {"steps": 5}, "features": ["pixels"], "resize": False}
    with tracked(["tensorboard"], tmp_path, settings) as follow:
        for event in EVENTS:
            follow(**event)
    files = [path.parent for path in tmp_path.glob("trackers/mmd-ddm/events.*")]
    assert len(files) == 1
    read = EventAccumulator(str(files[0])).Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == [(1, 0.5), (2, -0.25)]
    assert [(e.step, e.value) for e in read.Scalars("eval/kid")] == [(1, 0.25)]
    assert not {tag for tag in read.Tags()["scalars"] if "seconds" in tag or "step" in tag}


def test_without_events_or_trackers_nothing_is_written(tmp_path):
    with tracked(["tensorboard"], tmp_path, {}):
        pass
    with tracked([], tmp_path, {}) as follow:
        follow(**EVENTS[0])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_had_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    words = ("pretrain", "--data", "fashion-mnist", "--out", "new", "--tracker")
    done = mmd_ddm(tmp_path, *words, "nonsense")
    assert done.code == 2
    assert done.err.startswith("mmd-ddm: error: unknown tracker 'nonsense'; choose one of none, ")
    assert "wandb" in done.err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(accelerate_tracking, "get_available_trackers", list)
    with pytest.raises(ValueError, match="tracker wandb is not installed: pip install wandb"):
        check_trackers(["wandb"])
