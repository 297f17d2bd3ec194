r"""Re-noising, which consistency models are drawn with.

References:
    Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023, Algorithm 1.
    Luo, Tan, Huang, Li, Zhao, "Latent Consistency Models", 2023 (in betas).
"""

from collections.abc import Sequence
from typing import Any

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.ddim import DDIM

__all__ = ["Consistency"]


class Consistency(DDIM):
    """x_s = alpha_s x_0 + sigma_s z: DDIM's rule with all of sigma_s new.

    diffusers' `LCMScheduler` walks ``trailing`` times so.

    Args:
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        options: of `Sampler`.
    """

    stochastic = True

    def __init__(self, denoiser: Denoiser, times: Sequence[float], **options: Any) -> None:
        super().__init__(denoiser, times, **options)
        self.stochastic = True

    def w(self, t: float, s: float | None) -> float:
        """See `DDIM`."""
        return self.schedule(s)[1]
