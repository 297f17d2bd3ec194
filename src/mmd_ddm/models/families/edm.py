"""EDM-preconditioned `UNet2DModel`s of pixels, and consistency models, which are one family.

The network sees c_in x_t, and what it says is mixed with x_t to x_0 (`mmd_ddm.maths.predictions`).
"""

from jaxtyping import Float
from torch import Tensor

from mmd_ddm.models.families.unet2d import UNet2D

__all__ = ["EDMUNet2D"]


class EDMUNet2D(UNet2D):
    """A network that is told a share of log sigma, as ``EDMEulerScheduler`` does."""

    predictions = ("edm", "edm_v")

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, condition: None = None
    ) -> Float[Tensor, "n c h w"]:
        """See `Denoiser.forward`."""
        sigma_t = self.coefficients(t.to(x_t).expand(len(x_t)))[1] if isinstance(t, Tensor) else t
        c_in = (sigma_t**2 + self.schedule.preconditioning["sigma_data"] ** 2) ** -0.5
        return super().forward(c_in * x_t, t, condition)
