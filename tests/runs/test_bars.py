"""Progress where no terminal is: lines that a log file can hold."""

import io

import pytest
from rich.console import Console

from mmd_ddm.runs import bars as room
from mmd_ddm.runs.bars import Bars


@pytest.fixture
def told(monkeypatch):
    """A progress that prints into a text, on a clock that the test sets."""
    clock = {"now": 100.0}
    monkeypatch.setattr(room.time, "monotonic", lambda: clock["now"])
    bars = Bars()
    bars.console = Console(file=io.StringIO(), width=80, highlight=False, markup=False)
    return bars, clock


def lines(bars):
    return bars.console.file.getvalue().splitlines()


def test_a_line_every_few_seconds_with_the_time_that_is_left(told):
    bars, clock = told
    with bars.bar("finetuning", 140) as update:
        for step in range(1, 141):
            clock["now"] += 1
            update(done=step, note=f"MMD² {step}")
    assert lines(bars)[:2] == [
        "finetuning           5/140 0:00:05 < 0:02:15 MMD² 5",
        "finetuning           10/140 0:00:10 < 0:02:10 MMD² 10",
    ]
    assert lines(bars)[-1] == "finetuning           140/140 0:02:20 MMD² 140"
    assert len(lines(bars)) == 28


def test_what_was_done_before_is_not_taken_for_speed(told):
    bars, clock = told
    with bars.bar("finetuning", 100) as update:
        for step in range(51, 61):
            clock["now"] += 1
            update(done=step)
    assert lines(bars)[1] == "finetuning           60/100 0:00:10 < 0:00:40"


def test_a_long_note_stays_one_line_and_advances_add_up(told):
    bars, clock = told
    with bars.bar("images", 4) as update:
        update(advance=1)
        clock["now"] += 3600
        update(advance=1, note="x" * 100)
    assert lines(bars) == [f"images               2/4 1:00:00 < 1:00:00 {'x' * 100}"]


def test_a_terminal_has_bars(told):
    bars, _ = told
    bars.console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with bars.bar("images", 2) as update:
        update(done=2)
    assert "━" in bars.console.file.getvalue()
