"""The ODE solvers against exact flows: orders, identities, weights."""

from itertools import pairwise
from math import log2

import numpy as np
import pytest
import torch
from gaussian import GaussianDenoiser, TimeDenoiser, fine_schedule, march, noise

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import log_snr_times
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.deis import slope_weights
from mmd_ddm.samplers.dpm_solver import ContinuousSchedule, DPMSolver, fast_orders
from mmd_ddm.samplers.pndm import ADAMS_BASHFORTH, step_weights
from mmd_ddm.samplers.registry import make_sampler

SCHEDULE = NoiseSchedule.linear()
TIMES = (999, 730.5, 402, 211, 77.25, 8)


def equal_times(schedule, count):
    return np.linspace(0.8, 0.1, count) * len(schedule)


def quadratic_times(schedule, count):
    return np.linspace(0.9, 0.3, count) ** 2 * len(schedule)


def equal_log_snr(schedule, count):
    return log_snr_times(schedule, 0.8 * len(schedule), 0.02 * len(schedule), count)


@pytest.mark.parametrize(
    ("name", "grid", "order"),
    [
        ("ddim", equal_times, 1),
        ("heun", equal_times, 2),
        ("genie", equal_times, 2),
        ("s-pndm", equal_times, 2),
        ("f-pndm", equal_times, 2),
        ("ipndm", equal_times, 2),
        ("ipndm", quadratic_times, 2),
        ("dpm-solver-2", equal_log_snr, 2),
        ("dpm-solver++-2m", equal_log_snr, 2),
        ("dpm-solver-3", equal_log_snr, 3),
        ("dpm-solver++-3m", equal_log_snr, 3),
        ("unipc", equal_log_snr, 3),
        ("deis", equal_log_snr, 3),
    ],
)
def test_order_of_convergence(name, grid, order):
    schedule = fine_schedule()
    denoiser, x = GaussianDenoiser(schedule), noise()
    errors = []
    for steps in (80, 160):
        times = grid(schedule, steps + 1).tolist()
        end = march(make_sampler(name, denoiser, times), x)
        errors.append((end - denoiser.flow(x, times[0], times[-1])).abs().max().item())
    rate = log2(errors[0] / errors[1])
    # DEIS has weights of order 4 after a start of lower orders.
    assert order - 0.2 < rate < order + (0.8 if name == "deis" else 0.5)


@pytest.mark.parametrize("name", ["deis", "ipndm", "unipc"])
@pytest.mark.parametrize(("order", "grid"), [(1, equal_log_snr), (2, equal_log_snr)])
def test_order_of_convergence_that_was_asked_for(name, order, grid):
    schedule = fine_schedule()
    denoiser, x = GaussianDenoiser(schedule), noise()
    errors = []
    for steps in (80, 160):
        times = grid(schedule, steps + 1).tolist()
        end = march(make_sampler(name, denoiser, times, order=order), x)
        errors.append((end - denoiser.flow(x, times[0], times[-1])).abs().max().item())
    # The corrector of UniPC adds one order (its Corollary 3.2).
    more = name == "unipc"
    assert order - 0.2 < log2(errors[0] / errors[1]) < order + 0.5 + more


def test_one_transfer_is_ddim_dpm_solver_1_and_pndm():
    denoiser, x = GaussianDenoiser(SCHEDULE), noise()
    ddim = make_sampler("ddim", denoiser, TIMES)(x)
    torch.testing.assert_close(DPMSolver(denoiser, TIMES, order=1)(x), ddim, rtol=0, atol=1e-12)
    sampler = make_sampler("ipndm", denoiser, TIMES)
    for t, s in pairwise((*TIMES, None)):
        a_t, a_s = SCHEDULE.abar(t), SCHEDULE.abar(s)
        eps = denoiser(x, t)
        # PNDM, Eq. 11, and DPM-Solver-1, as their papers write them.
        first = x / (a_t**0.5 * (a_t**0.5 + a_s**0.5))
        second = eps / (a_t**0.5 * (((1 - a_s) * a_t) ** 0.5 + ((1 - a_t) * a_s) ** 0.5))
        pndm = x + (a_s - a_t) * (first - second)
        phi = sampler.phi(x, eps, t, s)
        torch.testing.assert_close(phi, pndm, rtol=0, atol=1e-12)
        if s is not None:
            h = SCHEDULE.log_snr(s) - SCHEDULE.log_snr(t)
            dpm = (a_s / a_t) ** 0.5 * x - (1 - a_s) ** 0.5 * np.expm1(h) * eps
            torch.testing.assert_close(phi, dpm, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_is_the_papers_update(order):
    denoiser, x = GaussianDenoiser(SCHEDULE), noise()
    t, s = 640, 310
    sampler = make_sampler(f"dpm-solver-{order}", denoiser, (t, s))
    (a, _), (a_s, g_s) = SCHEDULE(t), SCHEDULE(s)
    start = SCHEDULE.log_snr(t)
    h = SCHEDULE.log_snr(s) - start
    r = 1 / order
    t_1, t_2 = (float(SCHEDULE.time_of(start + i * r * h)) for i in (1, 2))
    (a_1, g_1), (a_2, g_2) = SCHEDULE(t_1), SCHEDULE(t_2)
    eps = denoiser(x, t)
    eps_1 = denoiser(a_1 / a * x - g_1 * np.expm1(r * h) * eps, t_1)
    expected = a_s / a * x - g_s * np.expm1(h) * eps
    if order == 2:
        expected -= g_s * np.expm1(h) * (eps_1 - eps)
    else:
        u_2 = a_2 / a * x - g_2 * np.expm1(2 * r * h) * eps
        u_2 -= g_2 * 2 * (np.expm1(2 * r * h) / (2 * r * h) - 1) * (eps_1 - eps)
        expected -= g_s / (2 * r) * (np.expm1(h) / h - 1) * (denoiser(u_2, t_2) - eps)
    end = sampler.step(x, t, s, Walk(denoiser, False), None)
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("nfe", "orders"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (5, [3, 2]), (6, [3, 2, 1]), (10, [3, 3, 3, 1])],
)
def test_fast_spends_its_calls_as_the_paper_says(nfe, orders):
    assert fast_orders(nfe) == orders
    assert sum(orders) == nfe


def test_fast_has_a_grid_of_its_own_uniform_in_log_snr():
    sampler = make_sampler("dpm-solver-fast", GaussianDenoiser(SCHEDULE), TIMES)
    edges = [SCHEDULE.log_snr(t) for t in (*sampler.times, 0)]
    np.testing.assert_allclose(np.diff(edges), (edges[-1] - edges[0]) / 3, rtol=1e-4)
    assert list(sampler.orders.values()) == [3, 2, 1]


def test_type_2_is_the_continuous_process_of_the_betas():
    continuous = ContinuousSchedule(SCHEDULE)
    times = np.array([0.01, 1, 37.5, 400, 998.5, 999])
    clock = np.array([continuous.log_snr(t) for t in times])
    np.testing.assert_allclose(continuous.time_of(clock), times, rtol=1e-9)
    # The paper's process, beta from 0.1 to 20, at the time t / 999 that its Type-2 maps to t.
    u = times / 999
    log_alpha = -(u**2) * (20 - 0.1) / 4 - u * 0.1 / 2
    expected = log_alpha - 0.5 * np.log(1 - np.exp(2 * log_alpha))
    np.testing.assert_allclose(clock, expected, rtol=1e-9)
    assert (continuous(None), continuous(0)) == ((1, 0), (1, 0))
    for t in (100, 500, 999):
        assert continuous.abar(t) == pytest.approx(SCHEDULE.abar(t), rel=0.1)
        assert continuous.abar(t) != SCHEDULE.abar(t)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_type_2_walks_it_from_end_to_end(order):
    """On the continuous process's own eps, the solver converges to its own flow."""
    denoiser, x = GaussianDenoiser(ContinuousSchedule(SCHEDULE)), noise()
    discrete = TimeDenoiser(None)
    discrete.forward = denoiser.forward
    errors = []
    for steps in (20, 40):
        times = log_snr_times(denoiser.schedule, 800, 20, steps + 1).tolist()
        sampler = DPMSolver(discrete, times, order=order, conversion="type-2")
        errors.append((march(sampler, x) - denoiser.flow(x, 800, 20)).abs().max().item())
    assert order - 0.2 < log2(errors[0] / errors[1]) < order + 0.5


@pytest.mark.parametrize("steps", [5, 6])
def test_fast_type_2_spends_its_calls_between_the_start_and_1_of_t(steps):
    sampler = make_sampler(
        "dpm-solver-fast-type-2", GaussianDenoiser(SCHEDULE), range(999, 0, -10)[:steps]
    )
    edges = [sampler.schedule.log_snr(t) for t in (*sampler.times, 0.999)]
    assert sampler.times[0] == 999
    np.testing.assert_allclose(
        np.diff(edges), (edges[-1] - edges[0]) / len(sampler.times), rtol=1e-4
    )
    assert list(sampler.orders.values()) == fast_orders(steps)
    sampler(noise())
    assert sampler.nfe == steps


def test_type_2_needs_linear_betas():
    cosine = NoiseSchedule.from_config({"beta_schedule": "squaredcos_cap_v2"})
    with pytest.raises(ValueError, match="Type-2 times are for linear betas"):
        make_sampler("dpm-solver-fast-type-2", GaussianDenoiser(cosine), TIMES)
    with pytest.raises(ValueError, match="unknown conversion 'type-3'; choose one of type-1"):
        DPMSolver(GaussianDenoiser(SCHEDULE), TIMES, order=1, conversion="type-3")


def test_the_last_dpm_solver_step_drops_the_noise_left_at_time_0():
    denoiser, x = GaussianDenoiser(SCHEDULE), noise()
    to_0 = make_sampler("dpm-solver-2", denoiser, (50, 0)).step(
        x, 50, 0, Walk(denoiser, False), None
    )
    to_data = make_sampler("dpm-solver-2", denoiser, (50,))(x)
    alpha_0, sigma_0 = SCHEDULE(0)
    t_1 = float(SCHEDULE.time_of((SCHEDULE.log_snr(50) + SCHEDULE.log_snr(0)) / 2))
    (a, g), (a_1, g_1) = SCHEDULE(50), SCHEDULE(t_1)
    eps = denoiser(x, 50)
    slope = denoiser(a_1 * (x - g * eps) / a + g_1 * eps, t_1)
    torch.testing.assert_close(to_0, alpha_0 * to_data + sigma_0 * slope, rtol=0, atol=1e-12)


def mean_over_rho(function, t, s, schedule):
    """The mean of a function of time over a step, in rho: a naive sum."""
    rho_s = schedule.rho(s)
    edges = np.linspace(schedule.rho(t), rho_s, 200_001)
    middles = (edges[1:] + edges[:-1]) / 2
    return float(np.mean(function(schedule.time_of(-np.log(middles)))))


@pytest.mark.parametrize("s", [30, None])
def test_deis_integrates_cubics_in_time(s):
    known = (120, 333, 400.5, 870)
    for power in range(4):
        by_weights = np.dot(
            slope_weights(SCHEDULE, known, s), [(t / 1000) ** power for t in known]
        )
        expected = mean_over_rho(lambda t, p=power: (t / 1000) ** p, 120, s, SCHEDULE)
        assert by_weights == pytest.approx(expected, abs=1e-6)


def test_deis_remembers_its_steps_in_order():
    def cubic(t):
        return (t / 1000) ** 3 - 0.4 * (t / 1000) ** 2 + 0.1

    denoiser, x = TimeDenoiser(cubic), noise()
    times = (900, 640, 500, 260, 90)
    sampler, walk = (
        make_sampler("deis", denoiser, times, order=4),
        Walk(TimeDenoiser(cubic), False),
    )
    ends = [x]
    for t, s in pairwise(times):
        ends.append(sampler.step(ends[-1], t, s, walk, None))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE(260), SCHEDULE(90)
    slope = mean_over_rho(cubic, 260, 90, SCHEDULE)
    expected = alpha_s / alpha_t * (ends[-2] - sigma_t * slope) + sigma_s * slope
    torch.testing.assert_close(ends[-1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("s-pndm", (3 / 2, -1 / 2)),
        ("f-pndm", (55 / 24, -59 / 24, 37 / 24, -9 / 24)),
    ],
)
def test_pndm_extrapolates_the_last_eps(name, weights):
    denoiser, x = TimeDenoiser(lambda t: (t / 1000) ** 2), noise()
    sampler = make_sampler(name, denoiser, TIMES)
    before = march(sampler, x)
    # The walk ends with the step to the data: undo the transfer to see its slope.
    slope = (before - SCHEDULE(8)[0] * sampler(x)) / SCHEDULE(8)[1]
    past = TIMES[::-1][: len(weights)]
    expected = sum(w * (t / 1000) ** 2 for w, t in zip(weights, past, strict=True))
    torch.testing.assert_close(slope, torch.full_like(x, expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("known", range(1, 5))
def test_weights_of_equal_steps_are_adams_bashforths(known):
    times = [170.5 + 200 * i for i in range(known)]
    weights = step_weights(times, 170.5 - 200)
    np.testing.assert_allclose(weights, ADAMS_BASHFORTH[known - 1], rtol=1e-12)


@pytest.mark.parametrize("s", [30, None])
def test_weights_of_unequal_steps_integrate_cubics(s):
    known, end = (120, 333, 400.5, 870), -1 if s is None else s
    for power in range(4):
        mean = (end ** (power + 1) - 120 ** (power + 1)) / (power + 1) / (end - 120)
        got = np.dot(step_weights(known, s), [t**power for t in known])
        assert got == pytest.approx(mean, rel=1e-9)


def test_pndm_starts_by_its_one_step_rules():
    denoiser, x = GaussianDenoiser(SCHEDULE), noise()
    t, s = 800, 500
    s_pndm, f_pndm = (make_sampler(name, denoiser, (t, s, 99, 9)) for name in ("s-pndm", "f-pndm"))
    e_1 = denoiser(x, t)
    e_2 = denoiser(s_pndm.phi(x, e_1, t, s), s)
    expected = s_pndm.phi(x, (e_1 + e_2) / 2, t, s)
    end = s_pndm.step(x, t, s, Walk(denoiser, False), None)
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-12)
    e_2 = denoiser(f_pndm.phi(x, e_1, t, 650), 650)
    e_3 = denoiser(f_pndm.phi(x, e_2, t, 650), 650)
    e_4 = denoiser(f_pndm.phi(x, e_3, t, s), s)
    expected = f_pndm.phi(x, (e_1 + 2 * e_2 + 2 * e_3 + e_4) / 6, t, s)
    end = f_pndm.step(x, t, s, Walk(denoiser, False), None)
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dpm-solver++-3m", "unipc"])
def test_third_order_multistep_is_exact_for_quadratics_in_log_snr(name):
    """x_0 = 1 + 0.7 lambda + lambda^2 / 2 whatever x_t is; diffusers' own 3M is 1e-3 off here."""

    class Quadratic(TimeDenoiser):
        def forward(self, x_t, t, condition=None):
            (alpha_t, sigma_t), clock = self.schedule(t), self.schedule.log_snr(t)
            return (x_t - alpha_t * (1 + 0.7 * clock + 0.5 * clock**2)) / sigma_t

    denoiser, asked = Quadratic(None), {"order": 3} if name == "unipc" else {}
    times = (900, 740, 600, 333, 180, 60)
    sampler, walk = make_sampler(name, denoiser, times, **asked), Walk(denoiser, False)
    ends = [noise()]
    for t, s in pairwise(times[:5]):
        ends.append(sampler.step(ends[-1], t, s, walk, None))
    t, s = times[3:5]
    clock = np.linspace(SCHEDULE.log_snr(t), SCHEDULE.log_snr(s), 100_001)
    middle = (clock[1:] + clock[:-1]) / 2
    integral = np.sum(np.exp(middle) * (1 + 0.7 * middle + 0.5 * middle**2)) * np.diff(clock)[0]
    sigma_t, sigma_s = SCHEDULE(t)[1], SCHEDULE(s)[1]
    before = ends[-2]
    if name == "unipc":
        before = walk.history[0].last_sample  # as corrected by the newest call
    torch.testing.assert_close(
        ends[-1], sigma_s / sigma_t * before + sigma_s * integral, rtol=0, atol=1e-8
    )
