"""Noise processes that have no table: rectified flows, and EDM's.

References:
    Liu, Gong, Liu, "Flow Straight and Fast", 2023.
    Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
    (shift).
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.
    Song et al., "Consistency Models", 2023.
"""

from collections.abc import Sequence
from math import exp, log
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.maths.schedules import Schedule

__all__ = ["FlowSchedule", "SigmaSchedule", "dynamic_shift"]

_USEFUL = 0.02  # sigma, below which a call changes nothing that one sees


class FlowSchedule(Schedule):
    """A rectified flow: x_t goes from x_0 to eps in a straight line.

    A *shift* s moves where the whole times lie, sigma' = s sigma / (1 + (s - 1) sigma), which is
    lambda' = lambda - log s; the process is the same.

    Args:
        shift: 1 for none; see `dynamic_shift`.
        num_train_timesteps: T.
    """

    name = "a rectified flow"

    def __init__(self, shift: float = 1.0, num_train_timesteps: int = 1000) -> None:
        if shift <= 0 or num_train_timesteps < 1:
            raise ValueError(
                f"the shift of a flow must be above 0, and T at least 1; got {shift:g} and "
                f"{num_train_timesteps}"
            )
        self.shift = shift
        self.T = num_train_timesteps
        self.bounds = (1e-3 * self.T, self.T)
        self.last = _USEFUL * self.T

    def __len__(self) -> int:
        return self.T

    def __call__(self, t: float | None) -> tuple[float, float]:
        """See `Schedule`."""
        sigma_t = (t or 0.0) / self.T
        return 1 - sigma_t, sigma_t

    def coefficients(self, times: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """See `Schedule`."""
        return 1 - times / self.T, times / self.T

    def draw(self, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Uniform (Liu et al., 2023)."""
        t = self.T * torch.rand(n, generator=draw, device=draw.device)
        return t, *self.coefficients(t)

    def time_of(self, log_snr: float | np.ndarray) -> np.ndarray:
        """See `Schedule`."""
        return np.asarray(self.T * np.exp(-np.logaddexp(0, log_snr)))

    def place(self, whole: Sequence[int]) -> tuple[float, ...]:
        """Shifted."""
        shares = ((i + 1) / self.T for i in whole)
        return tuple(
            round(self.T * self.shift * u / (1 + (self.shift - 1) * u), 6) for u in shares
        )


class SigmaSchedule(Schedule):
    """EDM's process, whose time is sigma (variance exploding).

    Args:
        sigma_min: where the training ends.
        sigma_max: where it begins.
        sigma_data: deviation of the data, for the preconditioning.
        ramp: the whole times are equally spaced in sigma^(1 / ramp).
        boundary: the level at which x_0 is x_t itself: 0 in EDM, sigma_min in consistency models.
        clock: a network is told so many times log sigma: 1/4 in EDM, 250 in consistency models.
        unit_data: whether a chain starts from sqrt(1 + sigma^2) z, as from data of deviation 1;
            otherwise from sigma z.
    """

    name = "EDM's sigmas"

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        *,
        sigma_data: float = 0.5,
        ramp: float = 7.0,
        boundary: float = 0.0,
        clock: float = 0.25,
        unit_data: bool = True,
    ) -> None:
        if not 0 < sigma_min < sigma_max or sigma_data <= 0 or ramp <= 0:
            raise ValueError(
                f"sigma_min must be above 0 and below sigma_max, sigma_data and rho above 0; got "
                f"{sigma_min:g}, {sigma_max:g}, {sigma_data:g} and {ramp:g}"
            )
        self.bounds = (sigma_min, sigma_max)
        self.last = min(max(sigma_min, _USEFUL), sigma_max)
        self.ramp = ramp
        self.clock = clock
        self.unit_data = unit_data
        self.preconditioning = {"sigma_data": sigma_data, "sigma_min": boundary}

    def __len__(self) -> int:
        return 1000

    def __call__(self, t: float | None) -> tuple[float, float]:
        """See `Schedule`."""
        return 1.0, float(t or 0.0)

    def coefficients(self, times: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """See `Schedule`."""
        return torch.ones_like(times), times

    def draw(self, n: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A normal log sigma, of mean -1.2 and deviation 1.2 (Karras et al., 2022, Table 1)."""
        sigma = (1.2 * torch.randn(n, generator=draw, device=draw.device) - 1.2).exp()
        return sigma, *self.coefficients(sigma)

    def time_of(self, log_snr: float | np.ndarray) -> np.ndarray:
        """See `Schedule`."""
        return np.asarray(np.exp(-np.asarray(log_snr)))

    def place(self, whole: Sequence[int]) -> tuple[float, ...]:
        """On the way from sigma_min to sigma_max, along the ramp."""
        low, high = (sigma ** (1 / self.ramp) for sigma in self.bounds)
        shares = ((i + 1) / len(self) for i in whole)
        placed = (round((low + u * (high - low)) ** self.ramp, 6) for u in shares)
        return tuple(min(max(sigma, self.bounds[0]), self.bounds[1]) for sigma in placed)

    def network_time(self, t: Any) -> Any:
        """A share of log sigma."""
        return self.clock * (t.log() if isinstance(t, Tensor) else log(t))

    def start(self, t: float) -> float:
        """See `Schedule`."""
        return float((t**2 + self.unit_data) ** 0.5)


def dynamic_shift(
    tokens: int,
    *,
    least: tuple[int, float] = (256, 0.5),
    most: tuple[int, float] = (4096, 1.15),
) -> float:
    """The shift that a flow takes at this size: exp(mu), with mu linear in the tokens.

    Args:
        tokens: patches of an image.
        least: so many, and mu there.
        most: likewise.
    """
    (low, mu_low), (high, mu_high) = least, most
    return exp(mu_low + (tokens - low) * (mu_high - mu_low) / (high - low))
