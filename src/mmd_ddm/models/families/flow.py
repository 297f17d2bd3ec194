"""`UNet2DModel`s of pixels that are rectified flows: they say the velocity eps - x_0.

diffusers draws them by `DDPMPipeline` with ``FlowMatchEulerDiscreteScheduler``, whose step is
DDIM's. Its levels are those of a shift s, stretched so that the last of K is a terminal level:

    1 - sigma_i = a v_i / (1 - q v_i),    v_i = i / (K - 1),    i = 0 ... K-1,

a family of two parameters, in which ``trailing`` times of any shift lie.
"""

from collections.abc import Mapping
from typing import Any

from mmd_ddm.models.families.unet2d import UNet2D

__all__ = ["FlowUNet2D", "flow_scheduler"]

_PLAIN = {
    "use_dynamic_shifting": False, "use_karras_sigmas": False, "use_exponential_sigmas": False,
    "use_beta_sigmas": False, "invert_sigmas": False, "stochastic_sampling": False,
    "shift_terminal": None,
}  # fmt: skip
_STEEPEST = 0.9  # of q, which is about 1 - 1 / shift


class FlowUNet2D(UNet2D):
    """A network that is told t = T sigma, as ``FlowMatchEulerDiscreteScheduler`` does."""

    predictions = ("flow_prediction",)
    pipelines = ("DDPMPipeline", "ConsistencyModelPipeline")

    def stock_scheduler(self, config: Mapping[str, Any], chain: Mapping[str, Any] | None) -> Any:
        """See `Denoiser`."""
        import diffusers

        if chain is None:
            name = config.get("_class_name", "FlowMatchEulerDiscreteScheduler")
            return getattr(diffusers, name).from_config(config)
        # With classes, this scheduler has not what `ConsistencyModelPipeline` asks for.
        return None if self.classes else flow_scheduler(len(self.schedule), chain)


def flow_scheduler(T: int, chain: Mapping[str, Any], shift: float | None = None) -> Any:
    """Diffusers' scheduler of a flow for this chain, whether its times fit or not.

    None where the steps are not DDIM's.

    Args:
        T: of the training.
        chain: ``ChainConfig`` with its times.
        shift: of a pipeline that gives its scheduler the levels to shift; None for all others,
            whose scheduler has levels of its own to be stretched.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if chain["sampler"] != "ddim" or chain["eta"] != 0 or chain["clip"]:
        return None
    sigmas = [t / T for t in chain["times"]]
    held = {"num_train_timesteps": T, "shift": 1.0, **_PLAIN}
    if shift is not None:
        held["shift"] = shift
    elif len(sigmas) > 1:
        held |= {"shift": _shift(sigmas, T), "shift_terminal": sigmas[-1]}
    return FlowMatchEulerDiscreteScheduler.from_config(held)


def _shift(sigmas: list[float], T: int) -> float:
    """The shift whose stretched levels have the second of these, and the last."""
    v, shift = 1 / (len(sigmas) - 1), 1.0
    r = (1 - sigmas[1]) / ((1 - sigmas[-1]) * v)
    q = (1 - r) / (1 - r * v) if r * v < 1 else 0.0  # of two steps any shift is right
    if q > _STEEPEST:
        return shift
    for _ in range(20):  # the unstretched levels end at shift / (T + shift - 1)
        shift = 1 / (1 - q / (1 - shift / (T + shift - 1)))
    return shift
