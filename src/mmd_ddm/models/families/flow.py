"""`UNet2DModel`s of pixels that are rectified flows: they say the velocity eps - x_0."""

from mmd_ddm.models.families.unet2d import UNet2D

__all__ = ["FlowUNet2D"]


class FlowUNet2D(UNet2D):
    """A network that is told t = T sigma, as ``FlowMatchEulerDiscreteScheduler`` does."""

    predictions = ("flow_prediction",)
