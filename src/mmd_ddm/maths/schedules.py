r"""How noisy each time is.

The forward process (paper Eqs. 1, 2) has the closed form

    x_t = alpha_t x_0 + sigma_t eps,   alpha_t = sqrt(abar_t),   sigma_t = sqrt(1 - abar_t),
    abar_t = prod_{i <= t} (1 - beta_i),

with ``t = 0 ... T-1``. The products are taken in float64.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["NoiseSchedule"]

_MOST = 1_000_000  # training times
_TRACE = 2.0**-24  # abar that stands for none, as in diffusers' own solvers


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
                "alpha-bar must lie strictly between 0 and 1: betas of 0 or 1 are no schedule"
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
        diffusers itself. One that ends at abar = 0 (zero terminal SNR) ends just above it here, so
        that x_0 and eps remain views of each other: images differ by less than a grey level.

        Raises:
            ValueError: no such schedule, or T that is not its length.
        """
        name = config.get("_class_name", "the scheduler")
        if "_class_name" in config and not {"beta_start", "trained_betas"} & config.keys():
            raise ValueError(f"{name} has no betas; a schedule as DDPM's or DDIM's is needed")
        steps = config.get("num_train_timesteps", 1000)
        if type(steps) is not int or not 1 <= steps <= _MOST:
            raise ValueError(
                f"num_train_timesteps of the scheduler is {steps!r}: a whole number from 1 to "
                f"{_MOST:,} is needed"
            )
        start, end = (
            _number(config, *default) for default in (("beta_start", 1e-4), ("beta_end", 0.02))
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
        return cls(_with_a_trace(alpha_bar))

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


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
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
