"""Times chosen by the schedule's noise, the inverse they rest on, and what every spacing draws."""

import numpy as np
import pytest
import torch

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import SCHEDULE_SPACINGS, SPACINGS, log_snr_times, select_times
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.ddim import DDIM

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
    if spacing == "log-snr-open":
        times += (0,)
    assert times[-1] == 0
    clock = np.array([schedule.log_snr(t) for t in times])
    if spacing == "karras":
        clock = np.exp(-clock / 7)
    step = (clock[-1] - clock[0]) / (len(times) - 1)
    np.testing.assert_allclose(np.diff(clock), step, rtol=1e-3)


def test_log_snr_times_between_any_two():
    times = log_snr_times(SCHEDULES[0], 700, 30.5, 3)
    clock = [SCHEDULES[0].log_snr(t) for t in times]
    assert times[[0, 2]].tolist() == [700, 30.5]
    assert clock[1] == pytest.approx((clock[0] + clock[2]) / 2, abs=1e-6)


class ShiftedDenoiser(Denoiser):
    """The exact eps of pixels that are N(0.6, 0.04)."""

    def __init__(self):
        super().__init__(torch.nn.Identity(), SCHEDULES[0], shape=(1, 8, 8))

    def forward(self, x_t, t, condition=None):
        alpha_t, sigma_t = self.schedule(t)
        return sigma_t * (x_t - alpha_t * 0.6) / (alpha_t**2 * 0.04 + sigma_t**2)


@pytest.mark.parametrize("steps", [1, 2, 5, 250, 334, 501, 600, 999, 1000])
@pytest.mark.parametrize("spacing", [*SPACINGS, *SCHEDULE_SPACINGS])
def test_a_gaussian_is_drawn_right_or_the_spacing_is_refused(spacing, steps):
    schedule = SCHEDULES[0]
    times = select_times(spacing, steps, 1000, schedule, truncated=True)
    if schedule(times[0])[0] > 0.05:
        with pytest.raises(ValueError, match="too far from pure noise"):
            select_times(spacing, steps, 1000, schedule)
        return
    generator = torch.Generator().manual_seed(0)
    drawn = DDIM(ShiftedDenoiser(), times)(torch.randn(64, 1, 8, 8, generator=generator))
    assert drawn.mean().item() == pytest.approx(0.6, rel=0.02)
    if steps >= 250:
        assert drawn.std().item() == pytest.approx(0.2, rel=0.1)


def test_errors():
    with pytest.raises(ValueError, match="'karras' depends on the model's schedule"):
        select_times("karras", 5, 1000)
    with pytest.raises(
        ValueError, match=r"choose one of linear-f.*, log-snr, log-snr-open, karras"
    ):
        select_times("log_snr", 5, 1000)
