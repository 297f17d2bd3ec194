r"""How noisy each time is, and which K of the T times to visit.

The forward process (paper Eqs. 1, 2) has the closed form

    x_t = alpha_t x_0 + sigma_t eps,   alpha_t = sqrt(abar_t),   sigma_t = sqrt(1 - abar_t),
    abar_t = prod_{i <= t} (1 - beta_i),

with ``t = 0 ... T-1``. The products are taken in float64. A *spacing* picks the K times of the
short chain, always exactly K of them and strictly decreasing. The paper's words and its released
code differ, so each reading has its own name:

===================  ==============================================  ======================
spacing              rule, i = 1 ... K                               K = 5, T = 1000
===================  ==============================================  ======================
linear-formula       floor(c i), c = (T-1)/K          (paper IV-E)   999 799 599 399 199
quadratic-formula    floor(c i^2), c = (T-1)/K^2      (paper IV-E)   999 639 359 159 39
leading              (i-1) (T // K)    (released code; diffusers)    800 600 400 200 0
midpoint             leading + (T // K) // 2                         900 700 500 300 100
quadratic-code       floor(linspace(0, sqrt(0.8 T), K)^2)  (DDIM)    800 450 200 50 0
trailing             round(T - (i-1) T/K) - 1              (diffusers)  999 799 599 399 199
linspace             round(linspace(0, T-1, K))            (diffusers)  999 749 500 250 0
log-snr              lambda_t equally spaced, T-1 ... 0 (DPM-Solver)  fractional, 999 ... 0
karras               rho_t^(1/7) equally spaced, T-1 ... 0     (EDM)  fractional, 999 ... 0
===================  ==============================================  ======================

with lambda_t = log(alpha_t / sigma_t) and rho_t = sigma_t / alpha_t of the model's own schedule.
Times searched for one model and schedule (Align Your Steps) are given as a custom list instead.

``midpoint`` asks the network in the middle of each of K equal strides, where ``leading`` asks at
its clean end: no call is spent at t = 0, where there is nothing left to do, nor at T - 1, where
there is nothing to see, and every step takes its share of the gradient.

``linear-code`` is accepted as another name of ``leading``: the released code takes
``range(0, T, T // K)``, which is ``leading`` wherever it has K entries (it has 16 for K = 15).

References:
    Aiello, Valsesia, Magli, "Fast Inference in Denoising Diffusion Models via MMD Finetuning".
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2020.
    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023 (trailing).
    Lu et al., "DPM-Solver", 2022 (log-snr).
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
    Eq. 5 (karras).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "SCHEDULE_SPACINGS",
    "SPACINGS",
    "NoiseSchedule",
    "check_times",
    "log_snr_times",
    "select_times",
]


class NoiseSchedule:
    """The table of abar_t.

    Args:
        alpha_bar: abar_t for t = 0 ... T-1, strictly decreasing, in (0, 1).
    """

    def __init__(self, alpha_bar: Float[Tensor, " t"]) -> None:
        self.alpha_bar = alpha_bar.to(torch.float64)
        if not bool(torch.all(self.alpha_bar[1:] < self.alpha_bar[:-1])):
            raise ValueError("alpha-bar must decrease strictly with t")
        if not bool(((self.alpha_bar > 0) & (self.alpha_bar < 1)).all()):
            raise ValueError(
                "alpha-bar must lie strictly between 0 and 1: a schedule with zero terminal SNR "
                "cannot be seen as eps-prediction"
            )
        self._log_alpha_bar = self.alpha_bar.log().numpy()

    @classmethod
    def linear(
        cls, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """Betas equally spaced from ``beta_start`` to ``beta_end`` (Ho et al., 2020)."""
        betas = torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)
        return cls(torch.cumprod(1 - betas, 0))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
        """Read a diffusers scheduler config (``scheduler_config.json``).

        Linear and scaled-linear betas are rebuilt in float64; any other schedule is asked of
        diffusers itself.
        """
        name = config.get("_class_name", "the scheduler")
        if "_class_name" in config and not {"beta_start", "trained_betas"} & config.keys():
            raise ValueError(f"{name} has no betas; a schedule as DDPM's or DDIM's is needed")
        steps = int(config.get("num_train_timesteps", 1000))
        start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        kind = config.get("beta_schedule", "linear")
        if config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr"):
            if kind == "linear":
                return cls.linear(steps, start, end)
            if kind == "scaled_linear":
                root = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
                return cls(torch.cumprod(1 - root**2, 0))
        from diffusers import DDPMScheduler

        try:
            scheduler = DDPMScheduler.from_config(dict(config))
        except NotImplementedError as error:
            raise ValueError(f"unknown beta schedule {kind!r}") from error
        return cls(scheduler.alphas_cumprod.to(torch.float64))

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def __call__(self, t: float | None) -> tuple[float, float]:
        """``(alpha_t, sigma_t)`` as Python floats; ``t = None`` is the data, ``(1, 0)``.

        A fractional t interpolates log abar linearly between its neighbours.
        """
        abar = self.abar(t)
        return abar**0.5, (1 - abar) ** 0.5

    def abar(self, t: float | None) -> float:
        """abar_t as a Python float; 1 for ``t = None``."""
        if t is None:
            return 1.0
        if float(t).is_integer():
            return float(self.alpha_bar[int(t)])
        return float(np.exp(np.interp(t, np.arange(len(self)), self._log_alpha_bar)))

    @property
    def betas(self) -> np.ndarray:
        """beta_t for t = 0 ... T-1."""
        return -np.expm1(np.diff(self._log_alpha_bar, prepend=0.0))

    @property
    def has_linear_betas(self) -> bool:
        """Whether the betas are equally spaced, as in Ho et al., 2020."""
        steps = np.diff(self.betas)
        return bool(np.allclose(steps, steps.mean(), rtol=1e-3, atol=0))

    def rho(self, t: float | None) -> float:
        """rho_t = sigma_t / alpha_t, the noise level; 0 for ``t = None``."""
        alpha_t, sigma_t = self(t)
        return sigma_t / alpha_t

    def rho_slope(self, t: float) -> float:
        """The derivative of rho by t, from below: log abar is linear between training times."""
        i = ceil(t)
        fall = self._log_alpha_bar[i] - (self._log_alpha_bar[i - 1] if i else 0.0)
        return float(-fall / (2 * self.abar(t) * self.rho(t)))  # as rho^2 = 1 / abar - 1

    def log_snr(self, t: float) -> float:
        """lambda_t = log(alpha_t / sigma_t), half the log signal-to-noise ratio."""
        return -float(np.log(self.rho(t)))

    def time_of(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t that has this lambda_t: the inverse of `log_snr`, fractional times included.

        Less noise than there is at time 0 gives a t between -1, which is the data, and 0.
        """
        falling = np.append(0.0, self._log_alpha_bar)
        log_alpha_bar = -np.logaddexp(0, -2 * np.asarray(log_snr))
        return np.asarray(np.interp(-log_alpha_bar, -falling, np.arange(-1, len(self))))


def _linear_formula(k: int, t: int) -> np.ndarray:
    return np.floor((t - 1) / k * np.arange(1, k + 1) + 1e-9)


def _quadratic_formula(k: int, t: int) -> np.ndarray:
    return np.floor((t - 1) / k**2 * np.arange(1, k + 1) ** 2 + 1e-9)


def _leading(k: int, t: int) -> np.ndarray:
    return np.arange(k) * (t // k)


def _midpoint(k: int, t: int) -> np.ndarray:
    return _leading(k, t) + t // k // 2


def _quadratic_code(k: int, t: int) -> np.ndarray:
    return np.floor(np.linspace(0, np.sqrt(0.8 * t), k) ** 2 + 1e-9)


def _trailing(k: int, t: int) -> np.ndarray:
    return np.round(t * np.arange(1, k + 1) / k) - 1


def _linspace(k: int, t: int) -> np.ndarray:
    return np.round(np.linspace(0, t - 1, k))


SPACINGS: dict[str, Callable[[int, int], np.ndarray]] = {
    "linear-formula": _linear_formula,
    "quadratic-formula": _quadratic_formula,
    "linear-code": _leading,
    "quadratic-code": _quadratic_code,
    "leading": _leading,
    "midpoint": _midpoint,
    "trailing": _trailing,
    "linspace": _linspace,
}


def log_snr_times(schedule: NoiseSchedule, start: float, end: float, count: int) -> np.ndarray:
    """Fractional times from start to end, both included, equally spaced in lambda."""
    grid = np.linspace(schedule.log_snr(start), schedule.log_snr(end), count)
    return schedule.time_of(grid).round(6)


def _log_snr(k: int, schedule: NoiseSchedule) -> np.ndarray:
    return log_snr_times(schedule, len(schedule) - 1, 0, k)[::-1]


def _karras(k: int, schedule: NoiseSchedule) -> np.ndarray:
    start, end = schedule.rho(len(schedule) - 1), schedule.rho(0)
    rho = np.linspace(start ** (1 / 7), end ** (1 / 7), k) ** 7
    return schedule.time_of(-np.log(rho)).round(6)[::-1]


SCHEDULE_SPACINGS: dict[str, Callable[[int, NoiseSchedule], np.ndarray]] = {
    "log-snr": _log_snr,
    "karras": _karras,
}


def select_times(
    spacing: str, steps: int, num_train_timesteps: int, schedule: NoiseSchedule | None = None
) -> tuple[float, ...]:
    """The K times a chain visits, noisiest first.

    A rule that would repeat a time (the quadratic ones, for many steps) has the later of the two
    moved up by one, so that K different times are always returned.

    Args:
        spacing: a name of `SPACINGS`, whose times are whole, or of `SCHEDULE_SPACINGS`, whose
            times are fractional.
        steps: K, from 1 to T.
        num_train_timesteps: T.
        schedule: the model's, for the `SCHEDULE_SPACINGS`.

    Raises:
        ValueError: an unknown spacing, K outside 1 ... T, or no schedule where one is needed.
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
        return check_times(fractional, num_train_timesteps)
    rising = SPACINGS[spacing](steps, num_train_timesteps).astype(int)
    index = np.arange(steps)
    distinct = np.maximum.accumulate(rising - index) + index
    return tuple(int(t) for t in distinct[::-1])


def check_times(times: Sequence[float], num_train_timesteps: int) -> tuple[float, ...]:
    """A custom list of times, as it is, if a chain can visit it.

    Raises:
        ValueError: an empty list, a time outside 0 ... T-1, or times that do not decrease.
    """
    if not times:
        raise ValueError("the list of times is empty")
    for t in times:
        if not 0 <= t <= num_train_timesteps - 1:
            raise ValueError(f"time {t:g} is outside 0 ... {num_train_timesteps - 1}")
    for t, s in pairwise(times):
        if s >= t:
            raise ValueError(f"times must decrease from noise to data; got {t:g} before {s:g}")
    return tuple(int(t) if float(t).is_integer() else float(t) for t in times)
