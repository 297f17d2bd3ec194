"""What a diffusers scheduler config says of a model, key by key.

The class names the process: betas, a rectified flow, EDM's sigmas. Keys that say how the network
was trained, and whether x_0 is clamped, hold here as well. Those
that say how a stock call walks are replaced by the chain, which is always told in full. All others
are named as not used, unless they have a value that changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmd_ddm.maths.continuous import FlowSchedule, SigmaSchedule
from mmd_ddm.maths.schedules import NoiseSchedule, Schedule, number, training_times

__all__ = ["SchedulerConfig"]

_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_CONSISTENCY = "CMStochasticIterativeScheduler"

_USED = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "rescale_betas_zero_snr", "prediction_type", "clip_sample", "thresholding", "sample_max_value",
    "dynamic_thresholding_ratio", "shift", "flow_shift", "sigma_data", "rho", "clip_denoised",
}  # fmt: skip
_WALK = {
    # Of our own scheduler.
    "times", "alpha_bars", "levels", "told", "init_noise_sigma", "process", "sampler", "steps",
    "table", "table_weights", "budgets",
    "timestep_spacing", "steps_offset", "skip_prk_steps", "solver_order", "solver_type",
    "solver_p", "algorithm_type", "lower_order_final", "euler_at_final", "final_sigmas_type",
    "lambda_min_clipped", "predict_x0", "disable_corrector", "interpolation_type",
    "timestep_type", "sigma_min", "sigma_max", "use_karras_sigmas", "use_exponential_sigmas",
    "use_beta_sigmas", "use_lu_lambdas", "original_inference_steps", "timestep_scaling",
    "variance_type", "time_shift_type", "shift_terminal", "tensor_format", "sigma_schedule",
    "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "stochastic_sampling",
    "s_noise",
}  # fmt: skip
_UNLESS = {  # the values that change nothing
    "clip_sample_range": 1,
    "set_alpha_to_one": True,
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "invert_sigmas": False,
}
# They clamp x_0 where their config does not say; so do configs of no class, which are early.
_CLAMPING = (
    None, "DDPMScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDIMParallelScheduler"
)  # fmt: skip


@dataclass(frozen=True)
class SchedulerConfig:
    """A scheduler's config, understood.

    Attributes:
        content: the config itself, in today's words.
        schedule: of the training.
        prediction: what the network answers with, of `mmd_ddm.maths.predictions.PREDICTIONS`.
        clip: whether diffusers clamps x_0 to [-1, 1] at every step.
        unused: keys that change what diffusers draws, and nothing here.
    """

    content: dict[str, Any]
    schedule: Schedule
    prediction: str
    clip: bool
    unused: tuple[str, ...]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "SchedulerConfig":
        """Understand a ``scheduler_config.json``.

        Raises:
            ValueError: values that contradict each other, or that no scheduler has.
        """
        content = dict(config)
        old = content.pop("predict_epsilon", None)  # of diffusers before 0.13
        if old is not None:
            meant = "epsilon" if old else "sample"
            if content.setdefault("prediction_type", meant) != meant:
                raise ValueError(
                    f"predict_epsilon of the scheduler is {old}, but its prediction_type is "
                    f"{content['prediction_type']!r}: delete the one that is wrong"
                )
        clamps = content.get("_class_name") in _CLAMPING
        clip = _flag(content, "clip_sample", clamps) or (
            content.get("_class_name") == _CONSISTENCY and _flag(content, "clip_denoised", True)
        )
        threshold = _flag(content, "thresholding")
        schedule, prediction = _process(content.get("process") or content)
        unused = [key for key, value in content.items() if not _without_effect(key, value)]
        if threshold and content.get("sample_max_value", 1) != 1:  # with 1, it clamps to [-1, 1]
            unused.append("thresholding")
        return cls(
            content,
            schedule,
            prediction,
            clip or threshold,
            tuple(unused),
        )


def _process(config: Mapping[str, Any]) -> tuple[Schedule, str]:
    """The schedule that such a scheduler trains with, and what it takes the network to say."""
    name, said = config.get("_class_name"), config.get("prediction_type", "epsilon")
    if not isinstance(said, str):
        raise ValueError(
            f"prediction_type of the scheduler is {said!r}: a name is needed, such as epsilon"
        )
    if name in _FLOW or said == "flow_prediction":
        if config.get("use_dynamic_shifting"):
            raise ValueError(
                f"{name} shifts by the size of an image (use_dynamic_shifting), which no pixel "
                "pipeline tells it: set a fixed shift"
            )
        shift = number(config, "shift", config.get("flow_shift", 1.0))
        return FlowSchedule(shift, training_times(config)), "flow_prediction"
    if name not in (*_EDM, _CONSISTENCY):
        return NoiseSchedule.from_config(config), said
    low, high, data, rho = (
        number(config, key, default)
        for key, default in (
            ("sigma_min", 0.002), ("sigma_max", 80.0), ("sigma_data", 0.5), ("rho", 7.0)
        )
    )  # fmt: skip
    if name == _CONSISTENCY:
        return (
            SigmaSchedule(
                low, high, sigma_data=data, ramp=rho, boundary=low, clock=250.0, unit_data=False
            ),
            "edm",
        )
    kinds = {"epsilon": "edm", "v_prediction": "edm_v"}
    if said not in kinds:
        raise ValueError(f"{name} has no prediction_type {said!r}: epsilon or v_prediction")
    return SigmaSchedule(low, high, sigma_data=data, ramp=rho), kinds[said]


def _flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    if value is not None and type(value) is not bool:
        raise ValueError(f"{key} of the scheduler is {value!r}: true or false is needed")
    return bool(value)


def _without_effect(key: str, value: Any) -> bool:
    known = key.startswith("_") or key in _USED | _WALK
    return known or (key in _UNLESS and value == _UNLESS[key])
