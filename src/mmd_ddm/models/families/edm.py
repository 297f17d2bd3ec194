"""EDM-preconditioned `UNet2DModel`s of pixels, and consistency models, which are one family.

The network sees c_in x_t, and what it says is mixed with x_t to x_0 (`mmd_ddm.maths.predictions`).
diffusers draws them by `ConsistencyModelPipeline`, the one that scales what the network sees: on
EDM's ramp from sigma_max to sigma_min with ``EDMEulerScheduler``, whose step is DDIM's; or with
``CMStochasticIterativeScheduler``, which adds noise between calls, but not at a single step.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmd_ddm.models.families.unet2d import UNet2D

__all__ = ["EDMUNet2D"]


class EDMUNet2D(UNet2D):
    """A network that is told a share of log sigma, as ``EDMEulerScheduler`` does."""

    predictions = ("edm", "edm_v")
    pipelines = ("ConsistencyModelPipeline",)

    def seen(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor
    ) -> tuple[Float[Tensor, "n c h w"], Tensor]:
        """See `Denoiser.seen`."""
        sigma_t = self.coefficients(t.to(x_t).expand(len(x_t)))[1] if isinstance(t, Tensor) else t
        c_in = (sigma_t**2 + self.schedule.preconditioning["sigma_data"] ** 2) ** -0.5
        return super().seen(c_in * x_t, t)

    def stock_scheduler(self, config: Mapping[str, Any], chain: Mapping[str, Any] | None) -> Any:
        """See `Denoiser`."""
        import diffusers

        own = getattr(diffusers, config.get("_class_name", "EDMEulerScheduler"))
        of_consistency = own is diffusers.CMStochasticIterativeScheduler
        if chain is None:
            return own.from_config(dict(config))
        if chain["sampler"] != "ddim" or chain["eta"] != 0:
            return None
        first, last = chain["times"][0], chain["times"][-1]
        if of_consistency:
            held = {**config, "sigma_max": first, "clip_denoised": chain["clip"]}
            return own.from_config(held) if len(chain["times"]) == 1 else None
        if chain["clip"]:
            return None
        return diffusers.EDMEulerScheduler(
            sigma_max=first,
            sigma_min=last if last < first else self.schedule.bounds[0],
            rho=config.get("rho", 7.0),
            sigma_data=self.schedule.preconditioning["sigma_data"],
            prediction_type="v_prediction" if self.prediction == "edm_v" else "epsilon",
        )

    def pipeline(self, scheduler: Any) -> Any:
        """See `Denoiser`."""
        from diffusers import ConsistencyModelPipeline

        return ConsistencyModelPipeline(self.network, scheduler)
