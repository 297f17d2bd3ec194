r"""How noisy each time is.

Every process has the closed form

    x_t = alpha_t x_0 + sigma_t eps,

and a chain needs nothing else of it: two with the same lambda_t = log(alpha_t / sigma_t) differ by
a factor of x_t. A *level* is (alpha_t, sigma_t); a *time* is what a person lists.

===============  ===================  ====================  =====================  ===============
process          alpha_t              sigma_t               time                   network is told
===============  ===================  ====================  =====================  ===============
`NoiseSchedule`  sqrt(abar_t)         sqrt(1 - abar_t)      0 ... T-1              t
`FlowSchedule`   1 - t / T            t / T                 up to T                t
`SigmaSchedule`  1                    t                     sigma_min ... _max     log(t) / 4
===============  ===================  ====================  =====================  ===============

with abar_t = prod_{i <= t} (1 - beta_i) (paper Eqs. 1, 2; the products are taken in float64), T
the training times of a rectified flow, and EDM's sigma for the last. Noise stands for x_t at the
first time of a chain as z, as z, and as sqrt(1 + sigma_t^2) z. The last two are in
`mmd_ddm.maths.continuous`.

References:
    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020.
    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023 (zero
    terminal SNR).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import ceil, inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["NoiseSchedule", "Schedule", "betas_of", "number", "training_times"]

_MOST = 1_000_000  # training times
_TRACE = 2.0**-24  # abar that stands for none, as in diffusers' own solvers


class Schedule(ABC):
    """A noise process.

    Attributes:
        name: in words, for errors.
        bounds: the least and the most noisy of its times.
        last: the least noisy time that is worth a network call, where spacings in lambda end.
        data: the time that stands for the data where solvers take polynomials in time.
        has_linear_betas: whether it has betas, equally spaced as in Ho et al., 2020.
        preconditioning: of EDM, for `mmd_ddm.maths.predictions.pair`.
    """

    name: str
    bounds: tuple[float, float]
    last: float
    data = 0.0
    has_linear_betas = False
    preconditioning: Mapping[str, float] = {}

    @abstractmethod
    def __len__(self) -> int:
        """T: how many whole times there are, of which `place` makes its own."""

    @abstractmethod
    def __call__(self, t: float | None) -> tuple[float, float]:
        """``(alpha_t, sigma_t)`` as Python floats; ``t = None`` is the data, ``(1, 0)``."""

    @abstractmethod
    def coefficients(self, times: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of many times, [n] each; differentiable in them, from below."""

    @abstractmethod
    def draw(self, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Times to train a network at, with alpha_t and sigma_t, [n] each, on draw's device."""

    @abstractmethod
    def time_of(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t that has this lambda_t: the inverse of `log_snr`, fractional times included."""

    @abstractmethod
    def place(self, whole: Sequence[int]) -> tuple[float, ...]:
        """The times at these of T whole ones, of which T-1 is noise and -1 would be the data."""

    @property
    def key(self) -> Any:
        """All that decides it, as JSON values."""
        return [type(self).__name__, vars(self)]

    def network_time(self, t: Any) -> Any:
        """What a network is told at time t; a number or a tensor, as t is."""
        return t

    def start(self, t: float) -> float:
        """The deviation of the white noise that stands for x_t where a chain starts."""
        return 1.0

    def transition(self, t: float, s: float | None) -> tuple[float, float]:
        """``(alpha_t / alpha_s)^2``, and the variance of x_t given x_s, for s less noisy."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self(t), self(s)
        ratio = (alpha_t / alpha_s) ** 2
        return ratio, sigma_t**2 - ratio * sigma_s**2

    def abar(self, t: float | None) -> float:
        """alpha_t^2 of the process with the same lambda_t and alpha_t^2 + sigma_t^2 = 1."""
        alpha_t, sigma_t = self(t)
        return alpha_t**2 / (alpha_t**2 + sigma_t**2)

    def rho(self, t: float | None) -> float:
        """rho_t = sigma_t / alpha_t, the noise level; 0 for ``t = None``, infinite at alpha 0."""
        alpha_t, sigma_t = self(t)
        return sigma_t / alpha_t if alpha_t else inf

    def log_snr(self, t: float) -> float:
        """lambda_t = log(alpha_t / sigma_t), half the log signal-to-noise ratio."""
        return -float(np.log(self.rho(t)))


class NoiseSchedule(Schedule):
    """The table of abar_t.

    Args:
        alpha_bar: abar_t for t = 0 ... T-1, strictly decreasing, in (0, 1). The last may be 0
            (zero terminal SNR): fractional times next to it then go towards a trace of the image.
    """

    name = "betas"
    last = 0.0
    data = -1.0

    def __init__(self, alpha_bar: Float[Tensor, " t"]) -> None:
        self.alpha_bar = alpha_bar.to(torch.float64)
        if not bool(torch.all(self.alpha_bar[1:] < self.alpha_bar[:-1])):
            raise ValueError("alpha-bar must decrease strictly with t")
        within = (self.alpha_bar > 0) & (self.alpha_bar < 1)
        if not bool(within[:-1].all() and (within[-1] or self._ends_at_0)):
            raise ValueError(
                "alpha-bar must lie strictly between 0 and 1: betas of 0 or 1 are no schedule"
            )
        self._abars = self.alpha_bar.tolist()  # a number of a tensor cannot be read in a trace
        self._log_alpha_bar = _with_a_trace(self.alpha_bar).log().numpy()
        self.bounds = (0, len(self) - 1)

    @property
    def _ends_at_0(self) -> bool:
        return len(self.alpha_bar) > 1 and float(self.alpha_bar[-1]) == 0

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

        Raises:
            ValueError: no such schedule, or T that is not its length.
        """
        name = config.get("_class_name", "the scheduler")
        if "_class_name" in config and not {"beta_start", "trained_betas"} & config.keys():
            raise ValueError(
                f"{name} has no betas, and is none of the schedulers of flows and of EDM: one as "
                "DDIMScheduler, FlowMatchEulerDiscreteScheduler, EDMEulerScheduler or "
                "CMStochasticIterativeScheduler is needed"
            )
        steps = training_times(config)
        start, end = (
            number(config, *default) for default in (("beta_start", 1e-4), ("beta_end", 0.02))
        )
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
        alpha_bar = scheduler.alphas_cumprod.to(torch.float64)
        if len(alpha_bar) != steps:
            raise ValueError(
                f"trained_betas of the scheduler has {len(alpha_bar)} values, but "
                f"num_train_timesteps is {steps}: give as many"
            )
        if alpha_bar[-1] == 0 and config.get("prediction_type", "epsilon") == "epsilon":
            raise ValueError(
                f"{name} has zero terminal SNR: where no image is left, a network that predicts "
                "epsilon says nothing of it; v_prediction is needed"
            )
        return cls(alpha_bar)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def __call__(self, t: float | None) -> tuple[float, float]:
        """See `Schedule`; a fractional t interpolates log abar linearly between its neighbours."""
        abar = self.abar(t)
        return abar**0.5, (1 - abar) ** 0.5

    def abar(self, t: float | None) -> float:
        """abar_t as a Python float; 1 for ``t = None``."""
        if t is None:
            return 1.0
        if float(t).is_integer():
            return float(self._abars[int(t)])
        return float(np.exp(np.interp(t, np.arange(len(self)), self._log_alpha_bar)))

    @property
    def key(self) -> Any:
        """The table."""
        return self._abars

    def coefficients(self, times: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """See `Schedule`."""
        log_alpha_bar = torch.from_numpy(self._log_alpha_bar).to(times)
        table = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar])  # begins with the data
        i = times.ceil().long()
        log_abar = torch.lerp(table[i], table[i + 1], times - (i - 1))
        alpha, sigma = (log_abar / 2).exp(), (-log_abar.expm1()).sqrt()
        return (alpha * (times < len(self) - 1) if self._ends_at_0 else alpha), sigma

    def draw(self, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Uniform over 0 ... T-1 (Ho et al., 2020)."""
        t = torch.randint(len(self), (n,), generator=draw, device=draw.device)
        abar = self.alpha_bar.to(draw.device)[t].to(torch.float32)
        return t, abar.sqrt(), (1 - abar).sqrt()

    def place(self, whole: Sequence[int]) -> tuple[float, ...]:
        """They are its times."""
        return tuple(whole)

    def transition(self, t: float, s: float | None) -> tuple[float, float]:
        """See `Schedule`."""
        ratio = self.abar(t) / self.abar(s)
        return ratio, 1 - ratio

    @property
    def betas(self) -> np.ndarray:
        """beta_t for t = 0 ... T-1."""
        return -np.expm1(np.diff(self._log_alpha_bar, prepend=0.0))

    @property
    def has_linear_betas(self) -> bool:  # type: ignore[override]
        """See `Schedule`."""
        steps = np.diff(self.betas)
        return bool(np.allclose(steps, steps.mean(), rtol=1e-3, atol=0))

    def rho_slope(self, t: float) -> float:
        """The derivative of rho by t, from below: log abar is linear between training times."""
        i = ceil(t)
        fall = self._log_alpha_bar[i] - (self._log_alpha_bar[i - 1] if i else 0.0)
        return float(-fall / (2 * self.abar(t) * self.rho(t)))  # as rho^2 = 1 / abar - 1

    def time_of(self, log_snr: float | np.ndarray) -> np.ndarray:
        """See `Schedule`; less noise than at time 0 gives a t between -1, the data, and 0."""
        falling = np.append(0.0, self._log_alpha_bar)
        log_alpha_bar = -np.logaddexp(0, -2 * np.asarray(log_snr))
        return np.asarray(np.interp(-log_alpha_bar, -falling, np.arange(-1, len(self))))


def betas_of(schedule: Schedule, what: str) -> NoiseSchedule:
    """The same schedule, for what is written in betas.

    Args:
        schedule: of a model.
        what: wants betas, for the error.

    Raises:
        ValueError: another process.
    """
    if not isinstance(schedule, NoiseSchedule):
        raise ValueError(
            f"{what} is written in betas, and this model's noise is {schedule.name}: take ddim, "
            "unipc, dpm-solver++-2m, ipndm, deis or heun"
        )
    return schedule


def training_times(config: Mapping[str, Any]) -> int:
    """T of a scheduler's config.

    Raises:
        ValueError: no number of times.
    """
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= _MOST:
        raise ValueError(
            f"num_train_timesteps of the scheduler is {steps!r}: a whole number from 1 to "
            f"{_MOST:,} is needed"
        )
    return steps


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """A number of a scheduler's config.

    Raises:
        ValueError: something else.
    """
    value = config.get(key, default)
    if type(value) not in (int, float):
        raise ValueError(f"{key} of the scheduler is {value!r}: a number is needed")
    return float(value)


def _with_a_trace(alpha_bar: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """The same, but that the last time keeps a trace of the image."""
    last = alpha_bar[-1:]
    if len(alpha_bar) > 1 and last == 0:
        last = (alpha_bar[-2:-1] / 2).clamp(max=_TRACE)
    return torch.cat([alpha_bar[:-1], last])
