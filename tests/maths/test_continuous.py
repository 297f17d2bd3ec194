"""Rectified flows and EDM's sigmas, against diffusers and closed forms."""

import math

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

from mmd_ddm.maths.continuous import FlowSchedule, SigmaSchedule, dynamic_shift
from mmd_ddm.maths.times import SCHEDULE_SPACINGS, SPACINGS, check_times, select_times

SCHEDULES = {
    "flow": FlowSchedule(), "shifted": FlowSchedule(3.0), "edm": SigmaSchedule(),
    "consistency": SigmaSchedule(boundary=0.002, clock=250.0, unit_data=False),
}  # fmt: skip
WHOLE = [999, 749, 499, 249]


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_of_inverts_log_snr(name):
    schedule = SCHEDULES[name]
    low, high = schedule.bounds
    for t in (low, low + 0.1 * (high - low), 0.99 * high):
        assert float(schedule.time_of(schedule.log_snr(t))) == pytest.approx(t, rel=1e-9)
    assert float(FlowSchedule().time_of(-math.inf)) == 1000


@pytest.mark.parametrize("name", SCHEDULES)
def test_coefficients_of_many_times_are_the_schedules(name):
    schedule = SCHEDULES[name]
    times = torch.tensor(schedule.place(WHOLE), dtype=torch.float64)
    got = torch.stack(schedule.coefficients(times), 1)
    expected = torch.tensor([schedule(float(t)) for t in times], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    told = torch.tensor([schedule.network_time(float(t)) for t in times], dtype=torch.float64)
    torch.testing.assert_close(schedule.network_time(times), told)


def test_training_draws_the_published_times():
    """Uniform; log sigma of mean -1.2 and deviation 1.2 (Karras et al., 2022, Table 1)."""
    for name, moments in {"flow": (500, 1000 / 12**0.5), "edm": (-1.2, 1.2)}.items():
        t, *levels = SCHEDULES[name].draw(20_000, torch.Generator().manual_seed(0))
        x = t.log() if name == "edm" else t
        assert (float(x.mean()), float(x.std())) == pytest.approx(moments, rel=0.03)
        expected = torch.tensor([SCHEDULES[name](float(one)) for one in t[:9]])
        torch.testing.assert_close(torch.stack(levels, 1)[:9], expected)


def test_a_shift_is_a_translation_of_log_snr():
    plain, shifted = (FlowSchedule(s).place(WHOLE[1:]) for s in (1.0, 3.0))
    clock = FlowSchedule().log_snr
    moved = [clock(t) - clock(u) for t, u in zip(plain, shifted, strict=True)]
    assert moved == pytest.approx([math.log(3)] * 3, rel=1e-7)


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_a_dynamic_shift_is_diffusers(tokens):
    mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
    sigmas = np.linspace(1, 0.25, 4)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    placed = FlowSchedule(dynamic_shift(tokens)).place(WHOLE)
    assert placed == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6)


def test_edm_is_diffusers_ramp_and_start():
    scheduler = EDMEulerScheduler(sigma_min=0.02)
    scheduler.set_timesteps(5)
    times = select_times("karras", 5, 1000, SigmaSchedule())
    assert times == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)
    assert SigmaSchedule().start(80.0) == pytest.approx(scheduler.init_noise_sigma)
    assert SCHEDULES["consistency"].start(80.0) == 80
    told = [SigmaSchedule().network_time(t) for t in times]
    assert told == pytest.approx(scheduler.timesteps.tolist(), rel=1e-5)


@pytest.mark.parametrize("spacing", [*SPACINGS, *SCHEDULE_SPACINGS])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_spacing_gives_times_that_a_chain_can_visit(name, spacing):
    schedule = SCHEDULES[name]
    for steps in (1, 2, 5, 40):
        times = select_times(spacing, steps, 1000, schedule, truncated=True)
        assert len(times) == steps
        assert check_times(times, schedule) == times
        if spacing in ("trailing", *SCHEDULE_SPACINGS) and steps > 1:
            assert times[0] == schedule.bounds[1]


def test_what_is_no_process_is_refused():
    for make in (
        lambda: FlowSchedule(0.0),
        lambda: FlowSchedule(num_train_timesteps=0),
        lambda: SigmaSchedule(80.0, 0.002),
        lambda: SigmaSchedule(sigma_data=0.0),
    ):
        with pytest.raises(ValueError, match="must be above 0"):
            make()
    with pytest.raises(ValueError, match=r"time 0 is outside 1 ... 1000"):
        check_times([1000.0, 0.0], FlowSchedule())
