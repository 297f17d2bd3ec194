"""Noise levels against diffusers and closed forms; always K distinct times."""

import re
from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import (
    SCHEDULE_SPACINGS,
    SPACINGS,
    check_start,
    check_times,
    log_snr_times,
    select_times,
)

TABLE = {  # the module's docstring, K = 5
    "linear-formula": (999, 799, 599, 399, 199),
    "quadratic-formula": (999, 639, 359, 159, 39),
    "quadratic-code": (800, 450, 200, 50, 0),
    "leading": (800, 600, 400, 200, 0),
    "midpoint": (900, 700, 500, 300, 100),
    "trailing": (999, 799, 599, 399, 199),
    "linspace": (999, 749, 500, 250, 0),
}


class TestNoiseSchedule:
    @pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
    def test_alpha_bar_is_diffusers_in_float64(self, kind):
        scheduler = DDIMScheduler(beta_schedule=kind, beta_start=2e-4, beta_end=0.015)
        alpha_bar = NoiseSchedule.from_config(scheduler.config).alpha_bar
        assert alpha_bar.dtype == torch.float64
        assert alpha_bar.shape == (1000,)
        # A float32 product of a thousand factors errs by some 1e-6 of its value.
        theirs = scheduler.alphas_cumprod.double()
        assert torch.allclose(alpha_bar, theirs, rtol=3e-6, atol=1e-9)

    @pytest.mark.parametrize("scaled", [False, True])
    def test_linear_betas_are_exact_in_float64(self, scaled):
        power = 0.5 if scaled else 1.0
        ends = np.array([1e-4, 0.02], dtype=np.float64) ** power
        betas = (ends[0] + (ends[1] - ends[0]) * np.arange(500) / 499) ** (1 / power)
        config = {
            "num_train_timesteps": 500,
            "beta_schedule": "scaled_linear" if scaled else "linear",
        }
        alpha_bar = NoiseSchedule.from_config(config).alpha_bar.numpy()
        assert np.allclose(alpha_bar, np.cumprod(1 - betas), rtol=1e-12, atol=0)

    def test_linear_is_the_default_config(self):
        assert torch.equal(
            NoiseSchedule.from_config(DDPMScheduler().config).alpha_bar,
            NoiseSchedule.linear().alpha_bar,
        )

    def test_trained_betas_are_kept(self):
        config = DDPMScheduler(trained_betas=[0.1, 0.2, 0.3], num_train_timesteps=3).config
        expected = torch.tensor([0.9, 0.72, 0.504], dtype=torch.float64)
        assert torch.allclose(NoiseSchedule.from_config(config).alpha_bar, expected, rtol=1e-6)

    def test_alpha_and_sigma(self):
        schedule = NoiseSchedule(torch.tensor([0.81, 0.36, 0.04], dtype=torch.float64))
        assert len(schedule) == 3
        assert schedule(1) == pytest.approx((0.6, 0.8))
        assert schedule(2) == pytest.approx((0.2, 0.96**0.5))
        assert schedule(None) == (1.0, 0.0)

    def test_fractional_times_interpolate_log_abar(self):
        schedule = NoiseSchedule(torch.tensor([0.81, 0.36, 0.04], dtype=torch.float64))
        assert schedule.abar(1.5) == pytest.approx((0.36 * 0.04) ** 0.5, rel=1e-14)
        assert schedule.abar(0.25) == pytest.approx(0.81**0.75 * 0.36**0.25, rel=1e-14)
        assert schedule.abar(1.0) == schedule.abar(1)

    def test_time_of_inverts_log_snr(self, schedule):
        for t in (0, 0.25, 3, 499.5, 998.75, 999):
            assert float(schedule.time_of(schedule.log_snr(t))) == pytest.approx(t, abs=1e-7)

    def test_rho_is_sigma_over_alpha(self, schedule):
        alpha_t, sigma_t = schedule(500)
        assert schedule.rho(500) == pytest.approx(sigma_t / alpha_t, rel=1e-14)
        assert schedule.rho(None) == 0
        assert schedule.log_snr(500) == pytest.approx(np.log(alpha_t / sigma_t), rel=1e-14)

    @pytest.mark.parametrize("alpha_bar", [[0.5, 0.5, 0.4], [0.5, 0.6]])
    def test_a_schedule_that_does_not_decrease_is_refused(self, alpha_bar):
        with pytest.raises(ValueError, match="decrease strictly"):
            NoiseSchedule(torch.tensor(alpha_bar))


class TestSelectTimes:
    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_five_times_are_the_table(self, spacing):
        assert select_times(spacing, 5, 1000) == TABLE[spacing]

    @pytest.mark.parametrize("train", [1000, 100, 7])
    @pytest.mark.parametrize("spacing", ["leading", "linspace"])
    def test_whole_spacings_are_diffusers(self, spacing, train):
        scheduler = DDIMScheduler(num_train_timesteps=train, timestep_spacing=spacing)
        for steps in range(1, min(train, 120) + 1):
            scheduler.set_timesteps(steps)
            assert select_times(spacing, steps, train) == tuple(scheduler.timesteps.tolist())

    @pytest.mark.parametrize("train", [1000, 100, 7])
    def test_trailing_is_diffusers_to_its_rounding(self, train):
        """diffusers steps through ``arange(T, 0, -T/K)``, whose float error shows in two ways.

        Values that are a half exactly may round the other way, and a time -1 may be appended.
        """
        scheduler = DDIMScheduler(num_train_timesteps=train, timestep_spacing="trailing")
        exact = 0
        for steps in range(1, min(train, 120) + 1):
            scheduler.set_timesteps(steps)
            theirs = scheduler.timesteps.tolist()[:steps]
            for i, (t, other) in enumerate(
                zip(select_times("trailing", steps, train), theirs, strict=True)
            ):
                value = train - i * Fraction(train, steps)
                assert abs(t + 1 - value) <= Fraction(1, 2)
                assert t == other or (value % 1 == Fraction(1, 2) and abs(t - other) == 1)
                exact += t == other
        assert exact > 0.9 * sum(range(1, min(train, 120) + 1))

    @pytest.mark.parametrize("spacing", [*SPACINGS, *SCHEDULE_SPACINGS])
    def test_always_k_distinct_decreasing_times(self, spacing, schedule):
        for steps in (*range(1, 101), 1000):
            times = select_times(spacing, steps, 1000, schedule, truncated=True)
            assert len(times) == steps
            assert all(t > s for t, s in pairwise(times))
            assert times[-1] >= 0
            assert times[0] <= 999

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_short_training_chains_are_filled(self, spacing):
        for train in range(1, 13):
            assert select_times(spacing, train, train) == tuple(range(train - 1, -1, -1))
            for steps in range(1, train):
                times = select_times(spacing, steps, train)
                assert len(set(times)) == steps
                assert set(times) <= set(range(train))

    @pytest.mark.parametrize("steps", [3, 7, 334, 501, 600, 999])
    def test_midpoints_are_in_the_middle_of_equal_strides(self, steps):
        middles = [(i + Fraction(1, 2)) * 1000 / steps for i in reversed(range(steps))]
        assert select_times("midpoint", steps, 1000) == tuple(map(floor, middles))

    def test_repeated_quadratic_times_move_up(self):
        squares = np.floor(np.linspace(0, 80**0.5, 40) ** 2)
        times = np.array(select_times("quadratic-code", 40, 100))[::-1]
        assert len(np.unique(squares)) < 40
        assert bool((times >= squares).all())
        assert times[-5:].tolist() == squares[-5:].tolist()

    @pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
    def test_log_snr_times_are_equally_spaced_in_lambda(self, kind):
        schedule = NoiseSchedule.from_config({"beta_schedule": kind})
        times = select_times("log-snr", 12, 1000, schedule)
        gaps = np.diff([schedule.log_snr(t) for t in times])
        assert (times[0], times[-1]) == (999, 0)
        assert np.allclose(gaps, gaps[0], rtol=1e-3)
        assert len(set(np.round(np.diff(times), 3))) > 1
        assert select_times("log-snr-open", 11, 1000, schedule) == times[:-1]
        inner = log_snr_times(schedule, times[3], times[7], 5)
        assert np.allclose(inner, times[3:8], atol=1e-2)

    def test_karras_times_are_equally_spaced_in_rho_to_the_seventh_root(self, schedule):
        times = select_times("karras", 12, 1000, schedule)
        roots = np.array([schedule.rho(t) ** (1 / 7) for t in times])
        assert (times[0], times[-1]) == (999, 0)
        assert np.allclose(np.diff(roots), np.diff(roots)[0], rtol=1e-3)

    @pytest.mark.parametrize("steps", [0, -1, 1001])
    @pytest.mark.parametrize("spacing", ["leading", "log-snr"])
    def test_impossible_counts_are_refused(self, spacing, steps, schedule):
        with pytest.raises(ValueError, match=rf"from 1 to T = 1000; got {steps}"):
            select_times(spacing, steps, 1000, schedule)

    def test_unknown_spacing_is_refused_and_the_known_ones_named(self):
        with pytest.raises(ValueError, match=r"unknown spacing 'uniform'.*leading.*karras"):
            select_times("uniform", 5, 1000)

    @pytest.mark.parametrize("spacing", SCHEDULE_SPACINGS)
    def test_spacings_of_the_schedule_need_it(self, spacing):
        with pytest.raises(ValueError, match="depends on the model's schedule"):
            select_times(spacing, 5, 1000)


class TestCheckStart:
    def test_white_noise_stands_for_noise_alone(self, schedule):
        last = next(t for t in reversed(range(1000)) if schedule(t)[0] > 0.05)
        assert schedule(last)[0] == pytest.approx(0.05, rel=0.02)
        check_start((last + 1, 30), schedule)
        said = (
            f"the chain starts at t = {last}, where alpha = 0.050: too far from pure noise (0.05) "
            "to begin with white noise; take --spacing trailing, more steps, or "
            "--start-from images"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            check_start((last, 30), schedule)

    def test_a_schedule_that_never_gets_there_starts_at_its_end(self):
        schedule = NoiseSchedule.linear(100)
        assert schedule(99)[0] > 0.05
        check_start((99, 3), schedule)
        with pytest.raises(ValueError, match="starts at t = 98"):
            check_start((98, 3), schedule)

    @pytest.mark.parametrize("steps", [1, 600])
    def test_spacings_are_checked_where_the_schedule_is_known(self, steps, schedule):
        with pytest.raises(ValueError, match="too far from pure noise"):
            select_times("leading", steps, 1000, schedule)
        anywhere = select_times("leading", steps, 1000, schedule, truncated=True)
        assert anywhere == select_times("leading", steps, 1000)


class TestCheckTimes:
    def test_good_times_are_returned_whole_where_they_are(self):
        times = check_times([999.0, 499.5, 3, 0], 1000)
        assert times == (999, 499.5, 3, 0)
        assert [type(t) for t in times] == [int, float, int, int]

    @pytest.mark.parametrize(
        ("times", "message"),
        [
            ([], "empty"),
            ([1000, 5], "time 1000 is outside 0 ... 999"),
            ([5, -1], "time -1 is outside"),
            ([999.5], r"time 999.5 is outside"),
            ([float("nan")], "time nan is outside"),
            ([5, 10], "must decrease from noise to data; got 5 before 10"),
            ([5, 5], "got 5 before 5"),
        ],
    )
    def test_times_no_chain_can_visit_are_refused(self, times, message):
        with pytest.raises(ValueError, match=message):
            check_times(times, 1000)
