"""Times chosen by the schedule's noise: log-snr and karras, and the inverse they rest on."""

import numpy as np
import pytest

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import log_snr_times, select_times

SCHEDULES = [
    NoiseSchedule.linear(),
    NoiseSchedule.from_config({"beta_schedule": "scaled_linear", "num_train_timesteps": 400}),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_time_of_inverts_log_snr(schedule):
    times = np.array([0, 0.25, 1, 7.75, 200, 398.5, len(schedule) - 1])
    clock = np.array([schedule.log_snr(t) for t in times])
    np.testing.assert_allclose(schedule.time_of(clock), times, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(schedule.rho(3.5), np.exp(-schedule.log_snr(3.5)), rtol=1e-12)
    assert schedule.rho(None) == 0
    assert schedule.time_of(np.array(np.inf)) == -1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
@pytest.mark.parametrize("spacing", ["log-snr", "karras"])
def test_both_ends_and_equal_steps_between(spacing, steps, schedule):
    times = select_times(spacing, steps, len(schedule), schedule)
    assert len(times) == steps
    assert times[0] == len(schedule) - 1
    if steps == 1:
        return
    assert times[-1] == 0
    clock = np.array([schedule.log_snr(t) for t in times])
    if spacing == "karras":
        clock = np.exp(-clock / 7)
    np.testing.assert_allclose(np.diff(clock), (clock[-1] - clock[0]) / (steps - 1), rtol=1e-3)


def test_log_snr_times_between_any_two():
    times = log_snr_times(SCHEDULES[0], 700, 30.5, 3)
    clock = [SCHEDULES[0].log_snr(t) for t in times]
    assert times[[0, 2]].tolist() == [700, 30.5]
    assert clock[1] == pytest.approx((clock[0] + clock[2]) / 2, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_log_snr_open_and_time_0_are_equally_spaced(schedule, steps):
    times = select_times("log-snr-open", steps, len(schedule), schedule)
    assert len(times) == steps
    assert times[0] == len(schedule) - 1
    clock = [schedule.log_snr(t) for t in (*times, 0)]
    np.testing.assert_allclose(np.diff(clock), (clock[-1] - clock[0]) / steps, rtol=1e-3)


def test_errors():
    with pytest.raises(ValueError, match="'karras' depends on the model's schedule"):
        select_times("karras", 5, 1000)
    with pytest.raises(
        ValueError, match=r"choose one of linear-formula, .*, log-snr, log-snr-open, karras"
    ):
        select_times("log_snr", 5, 1000)
