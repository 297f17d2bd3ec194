r"""Which K of the T times the short chain visits.

A *spacing* picks the times, always exactly K of them and strictly decreasing. The paper's words
and its released code differ, so each reading has its own name:

===================  ==============================================  ======================
spacing              rule, i = 1 ... K                               K = 5, T = 1000
===================  ==============================================  ======================
linear-formula       floor(c i), c = (T-1)/K          (paper IV-E)   999 799 599 399 199
quadratic-formula    floor(c i^2), c = (T-1)/K^2      (paper IV-E)   999 639 359 159 39
leading              (i-1) (T // K)    (released code; diffusers)    800 600 400 200 0
midpoint             floor((i - 1/2) T/K)                            900 700 500 300 100
quadratic-code       floor(linspace(0, sqrt(0.8 T), K)^2)  (DDIM)    800 450 200 50 0
trailing             round(T - (i-1) T/K) - 1              (diffusers)  999 799 599 399 199
linspace             round(linspace(0, T-1, K))            (diffusers)  999 749 500 250 0
log-snr              lambda_t equally spaced, T-1 ... 0              fractional, 999 ... 0
log-snr-open         K + 1 of log-snr, without the last   (DPM-Solver)  fractional, 999 ... 17
karras               rho_t^(1/7) equally spaced, T-1 ... 0     (EDM)  fractional, 999 ... 0
arctan               arctan(2 rho_t) equally spaced, to data   (AYS)  fractional, 999 ... 46
===================  ==============================================  ======================

with lambda_t = log(alpha_t / sigma_t) and rho_t = sigma_t / alpha_t of the model's own schedule.
Of a process without betas the whole times are shares of the way from the data (-1) to noise (T-1),
``trailing`` 1 - (i-1)/K, which `Schedule.place` turns into its own times, shifted or along a ramp;
spacings in lambda end where sigma is 0.02. Where a schedule begins with nothing of the image,
lambda is infinite: spacings in lambda then go from alpha = 0.05, which is white noise as well, but
for the first time, which is that of no image.

Times searched for one model and schedule (Align Your Steps) are given as a custom list instead.

``midpoint`` asks the network in the middle of each of K equal strides, where ``leading`` asks at
its clean end: no call is spent at t = 0, where there is nothing left to do, nor at T - 1, where
there is nothing to see, and every step takes its share of the gradient. ``log-snr-open`` is the
grid of the published DPM-Solvers and UniPC: they walk its K + 1 points and never ask at the last.

A chain of white noise must begin where x_t is white noise: `check_start`. ``leading`` does not for
up to 4 steps, nor, as it floors its stride, for many from 251 to 769 (T = 1000).

References:
    Aiello, Valsesia, Magli, "Fast Inference in Denoising Diffusion Models via MMD Finetuning".
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2020.
    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023 (trailing).
    Lu et al., "DPM-Solver", 2022 (log-snr-open).
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
    Eq. 5 (karras).
    Sabour, Fidler, Kreis, "Align Your Steps", 2024 (arctan: the optimum for N(0, 1/4)).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, isfinite, log

import numpy as np

from mmd_ddm.maths.schedules import Schedule

__all__ = [
    "SCHEDULE_SPACINGS",
    "SPACINGS",
    "check_start",
    "check_times",
    "log_snr_times",
    "nested_times",
    "select_times",
]

_NOISE = 0.05  # an x_t with no more than this share of the image is white noise


def _linear_formula(k: int, t: int) -> np.ndarray:
    return np.asarray(np.floor((t - 1) / k * np.arange(1, k + 1) + 1e-9))


def _quadratic_formula(k: int, t: int) -> np.ndarray:
    return np.asarray(np.floor((t - 1) / k**2 * np.arange(1, k + 1) ** 2 + 1e-9))


def _leading(k: int, t: int) -> np.ndarray:
    return np.arange(k) * (t // k)


def _midpoint(k: int, t: int) -> np.ndarray:
    return (2 * np.arange(k) + 1) * t // (2 * k)


def _quadratic_code(k: int, t: int) -> np.ndarray:
    return np.floor(np.linspace(0, np.sqrt(0.8 * t), k) ** 2 + 1e-9)


def _trailing(k: int, t: int) -> np.ndarray:
    return np.round(t * np.arange(1, k + 1) / k) - 1


def _linspace(k: int, t: int) -> np.ndarray:
    return np.round(np.linspace(0, t - 1, k))


SPACINGS: dict[str, Callable[[int, int], np.ndarray]] = {
    "linear-formula": _linear_formula,
    "quadratic-formula": _quadratic_formula,
    "quadratic-code": _quadratic_code,
    "leading": _leading,
    "midpoint": _midpoint,
    "trailing": _trailing,
    "linspace": _linspace,
}


def log_snr_times(schedule: Schedule, start: float, end: float, count: int) -> np.ndarray:
    """Fractional times from start to end, both included, equally spaced in lambda."""
    grid = np.linspace(_finite_log_snr(schedule, start), schedule.log_snr(end), count)
    times = _rounded(schedule.time_of(grid), schedule)
    return times if isfinite(schedule.log_snr(start)) else np.append(start, times[1:])


def _rounded(times: np.ndarray, schedule: Schedule) -> np.ndarray:
    return np.asarray(np.clip(times.round(6), *schedule.bounds))


def _finite_log_snr(schedule: Schedule, t: float) -> float:
    found = schedule.log_snr(t)
    return found if isfinite(found) else log(_NOISE)


def _log_snr(k: int, schedule: Schedule) -> np.ndarray:
    return log_snr_times(schedule, schedule.bounds[1], schedule.last, k)[::-1]


def _log_snr_open(k: int, schedule: Schedule) -> np.ndarray:
    return _log_snr(k + 1, schedule)[1:]


def _karras(k: int, schedule: Schedule) -> np.ndarray:
    first = schedule.bounds[1]
    start, end = schedule.rho(first), schedule.rho(schedule.last)
    finite = 1 / _NOISE if start == inf else start
    rho = np.linspace(finite ** (1 / 7), end ** (1 / 7), k) ** 7
    times = _rounded(schedule.time_of(-np.log(rho)), schedule)
    return (times if finite == start else np.append(first, times[1:]))[::-1]


def _arctan(k: int, schedule: Schedule) -> np.ndarray:
    first = schedule.bounds[1]
    widest, least = (np.arctan(2 * schedule.rho(t)) for t in (first, schedule.last))
    angles = np.linspace(max(widest / k, least), widest, k)[:-1]
    return np.append(_rounded(schedule.time_of(-np.log(np.tan(angles) / 2)), schedule), first)


SCHEDULE_SPACINGS: dict[str, Callable[[int, Schedule], np.ndarray]] = {
    "log-snr": _log_snr,
    "log-snr-open": _log_snr_open,
    "karras": _karras,
    "arctan": _arctan,
}


def select_times(
    spacing: str,
    steps: int,
    num_train_timesteps: int,
    schedule: Schedule | None = None,
    *,
    truncated: bool = False,
) -> tuple[float, ...]:
    """The K times a chain visits, noisiest first.

    A rule that would repeat a time (the quadratic ones, for many steps) has the later of the two
    moved up by one, so that K different times are always returned.

    Args:
        spacing: a name of `SPACINGS`, whose times are whole, or of `SCHEDULE_SPACINGS`, whose
            times are fractional.
        steps: K, from 1 to T.
        num_train_timesteps: T.
        schedule: the model's, for the `SCHEDULE_SPACINGS`, for times without betas, and to
            `check_start`.
        truncated: the walk begins from noised images, at any time.

    Raises:
        ValueError: an unknown spacing, K outside 1 ... T, no schedule where one is needed, or a
            start too far from noise.
    """
    if spacing not in SPACINGS and spacing not in SCHEDULE_SPACINGS:
        names = ", ".join((*SPACINGS, *SCHEDULE_SPACINGS))
        raise ValueError(f"unknown spacing {spacing!r}; choose one of {names}")
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"steps must be from 1 to T = {num_train_timesteps}; got {steps}")
    if spacing in SCHEDULE_SPACINGS:
        if schedule is None:
            raise ValueError(f"spacing {spacing!r} depends on the model's schedule: pass it")
        fractional = SCHEDULE_SPACINGS[spacing](steps, schedule)[::-1].tolist()
        return check_times(fractional, schedule)
    rising = SPACINGS[spacing](steps, num_train_timesteps).astype(int)
    index = np.arange(steps)
    distinct = np.maximum.accumulate(rising - index) + index
    whole = tuple(int(t) for t in distinct[::-1])
    times = whole if schedule is None else schedule.place(whole)
    if schedule is not None and not truncated:
        check_start(times, schedule)
    return times


def nested_times(
    times: Sequence[float], between: int = 1, data: float = -1.0
) -> tuple[float, ...]:
    """These times, and equally spaced ones between each and the next, and the last and the data.

    Args:
        times: decreasing.
        between: how many to add behind each.
        data: the time that stands for the data (`Schedule.data`).
    """
    shares = np.arange(between + 1) / (between + 1)
    pairs = pairwise([*times, data])
    return tuple(float(round(t + share * (s - t), 6)) for t, s in pairs for share in shares)


def check_start(times: Sequence[float], schedule: Schedule) -> None:
    """White noise may stand for x_t at the first time: alpha_t <= 0.05, or none is noisier.

    A schedule that ends with more of the image than that was trained so; its last time is as
    close to noise as it comes.

    Raises:
        ValueError: any other start.
    """
    t, alpha_t = times[0], schedule.abar(times[0]) ** 0.5
    if alpha_t > _NOISE and t != schedule.bounds[1]:
        raise ValueError(
            f"the chain starts at t = {t:g}, where alpha = {alpha_t:.3f}: too far from pure noise "
            f"({_NOISE:g}) to begin with white noise; take --spacing trailing, more steps, or "
            "--start-from images"
        )


def check_times(times: Sequence[float], within: int | Schedule) -> tuple[float, ...]:
    """A custom list of times, as it is, if a chain can visit it.

    Args:
        times: the list.
        within: the schedule that has them, or its T.

    Raises:
        ValueError: an empty list, a time that the schedule has not (of betas, one outside
            0 ... T-1), or times that do not decrease.
    """
    low, high = (0, within - 1) if isinstance(within, int) else within.bounds
    if not times:
        raise ValueError("the list of times is empty")
    for t in times:
        if not low <= t <= high:
            raise ValueError(f"time {t:g} is outside {low:g} ... {high:g}")
    for t, s in pairwise(times):
        if s >= t:
            raise ValueError(f"times must decrease from noise to data; got {t:g} before {s:g}")
    return tuple(int(t) if float(t).is_integer() else float(t) for t in times)
