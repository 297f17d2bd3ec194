"""A diffusers scheduler that visits exactly the times it was saved with.

DDIM (Song et al., 2020, Eq. 12, eta = 0) on any decreasing list of times, which no stock
scheduler can hold, of any process x_t = alpha_t x_0 + sigma_t eps; or any other deterministic
solver, as a table of what each of its states is made of. A model that was finetuned for several
numbers of steps has a list of times for each. This file is copied into exported folders and
depends on diffusers alone:

    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    images = pipe(num_inference_steps=len(times)).images
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

__all__ = ["FewStepOutput", "FewStepScheduler"]


@dataclass
class FewStepOutput(BaseOutput):
    """The next sample, and the prediction of x_0 behind it."""

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class FewStepScheduler(SchedulerMixin, ConfigMixin):
    """A chain on a fixed list of times, or one for each of some numbers of steps.

    Args:
        times: of the network calls, in their order, noisiest first.
        alpha_bars: abar at those times.
        levels: alpha and sigma at those times, of other processes than betas.
        told: the network at those times, where it is not the times.
        prediction_type: epsilon, sample, v_prediction, flow_prediction, edm or edm_v.
        sampler: what the model was finetuned with; any but ``ddim`` needs a table.
        steps: of the sampler, each of one network call or more; by default one.
        table: a row a call, of what the next state is made of: its share of the first state, then
            of the prediction of x_0 in this and each earlier call.
        budgets: ``times``, ``alpha_bars``, ``levels``, ``told``, ``table`` and ``steps`` of every
            number of steps, if there are several, instead of those above.
        table_weights: hash of the weights that the table was learned with, if it was.
        clip_sample: clamp predictions of x_0 to [-1, 1]; DDIM alone.
        num_train_timesteps: T of the training.
        beta_start: of the training schedule, for the record.
        beta_end: likewise.
        beta_schedule: likewise.
        trained_betas: likewise.
        rescale_betas_zero_snr: likewise.
        init_noise_sigma: what standard normal noise is multiplied by.
        sigma_data: deviation of the data, of EDM.
        sigma_min: the level at which x_0 is the sample itself, of consistency models.
        process: config of the base's scheduler, if it has no betas.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        times: list[float] | None = None,
        alpha_bars: list[float] | None = None,
        prediction_type: str = "epsilon",
        sampler: str = "ddim",
        steps: int | None = None,
        table: list[list[float]] | None = None,
        budgets: list[dict[str, Any]] | None = None,
        table_weights: str | None = None,
        clip_sample: bool = False,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        levels: list[list[float]] | None = None,
        told: list[float] | None = None,
        init_noise_sigma: float = 1.0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.0,
        process: dict[str, Any] | None = None,
    ) -> None:
        self.init_noise_sigma = init_noise_sigma
        one = {
            "times": times or [], "alpha_bars": alpha_bars, "levels": levels, "told": told,
            "table": table, "steps": steps,
        }  # fmt: skip
        self.chains = {
            chain.get("steps") or len(chain["times"]): chain for chain in budgets or [one]
        }
        self.chain = max(self.chains.items())[1]
        self.timesteps = torch.tensor(self.told)
        self.known: list[torch.Tensor] = []

    @property
    def told(self) -> list[float]:
        """What the network is told at each call."""
        return self.chain.get("told") or self.chain["times"]

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        original_inference_steps: int | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Accept a number of steps that this model was finetuned for.

        What `LatentConsistencyModelPipeline` and `FluxPipeline` say beside it is of lists of their
        own; of those, the number is meant.

        Raises:
            ValueError: any other number, or a model that was finetuned with another sampler.
        """
        if num_inference_steps is None:
            num_inference_steps = len(sigmas or ())
        chain = self.chains.get(num_inference_steps, self.chain)
        if self.config.sampler != "ddim" and chain.get("table") is None:
            raise ValueError(
                f"this model was finetuned with the sampler {self.config.sampler}, which this "
                "scheduler cannot repeat: draw from it with `mmd-ddm sample`"
            )
        if num_inference_steps not in self.chains:
            known = ", ".join(map(str, self.chains))
            at = f" at times {self.chain['times']}" if len(self.chains) == 1 else ""
            raise ValueError(
                f"this model was finetuned for {known} steps{at}: pass "
                f"num_inference_steps={known.replace(', ', ' or ')} (got {num_inference_steps})"
            )
        self.chain = chain
        self.timesteps = torch.tensor(self.told, device=device)
        self.known = []

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Pipelines of flows say where to begin; a chain begins where its list does."""

    def scale_model_input(
        self, sample: torch.Tensor, timestep: float | torch.Tensor
    ) -> torch.Tensor:
        """EDM's c_in, of networks that are preconditioned so."""
        if not self.config.prediction_type.startswith("edm"):
            return sample
        _, sigma = self._level(self._call(timestep))
        return sample / (sigma**2 + self.config.sigma_data**2) ** 0.5

    def _call(self, timestep: float | torch.Tensor) -> int:
        """The number of the call; those of a table are in order, and may repeat a time."""
        if self.chain.get("table") is not None:
            return max(len(self.known) - 1, 0)
        return int(np.abs(np.asarray(self.told, dtype=np.float64) - float(timestep)).argmin())

    def _level(self, i: int) -> tuple[float, float]:
        """Alpha and sigma at a call; after the last, of the data."""
        if i == len(self.told):
            return 1.0, 0.0
        if self.chain.get("levels"):
            alpha, sigma = self.chain["levels"][i]
            return alpha, sigma
        abar = self.chain["alpha_bars"][i]
        return abar**0.5, (1 - abar) ** 0.5

    def _pair(
        self, x: torch.Tensor, said: torch.Tensor, alpha: float, sigma: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_0 and eps."""
        kind, data = self.config.prediction_type, self.config.sigma_data
        if kind == "epsilon":
            return (x - sigma * said) / alpha, said
        if kind == "v_prediction":
            return alpha * x - sigma * said, alpha * said + sigma * x
        if kind == "flow_prediction":
            whole = alpha + sigma
            return (x - sigma * said) / whole, (x + alpha * said) / whole
        x_0 = said
        if kind.startswith("edm"):
            above = sigma - self.config.sigma_min
            out = above * data / (sigma**2 + data**2) ** 0.5
            skip = data**2 / (above**2 + data**2)
            x_0 = skip * x + (-out if kind == "edm_v" else out) * said
        return x_0, (x - alpha * x_0) / sigma

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> FewStepOutput | tuple[torch.Tensor, torch.Tensor]:
        """From the sample at this time to the sample at the next."""
        table = self.chain.get("table")
        if table is not None:
            self.known = self.known or [sample]
        i = self._call(timestep)
        said = model_output[:, : sample.shape[1]]
        x_0, eps = self._pair(sample, said, *self._level(i))
        if self.config.clip_sample:
            x_0 = x_0.clamp(-1, 1)
        if table is None:
            alpha_s, sigma_s = self._level(i + 1)
            x_s = alpha_s * x_0 + sigma_s * eps
        else:
            self.known.append(x_0)
            x_s = sum(w * x for w, x in zip(table[i], self.known, strict=True))
        return FewStepOutput(x_s, x_0) if return_dict else (x_s, x_0)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)
