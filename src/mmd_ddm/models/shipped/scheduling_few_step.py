"""A diffusers scheduler that visits exactly the times it was saved with.

DDIM (Song et al., 2020, Eq. 12, eta = 0) on any decreasing list of times, which no stock
scheduler can hold; or any other deterministic solver, as a table of what each of its states is
made of. A model that was finetuned for several numbers of steps has a list of times for each. This
file is copied into exported folders and depends on diffusers alone:

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
        prediction_type: epsilon, sample or v_prediction.
        sampler: what the model was finetuned with; any but ``ddim`` needs a table.
        steps: of the sampler, each of one network call or more; by default one.
        table: a row a call, of what the next state is made of: its share of the first state, then
            of the prediction of x_0 in this and each earlier call.
        budgets: ``times``, ``alpha_bars``, ``table`` and ``steps`` of every number of steps, if
            there are several, instead of those above.
        table_weights: hash of the weights that the table was learned with, if it was.
        clip_sample: clamp predictions of x_0 to [-1, 1]; DDIM alone.
        num_train_timesteps: T of the training.
        beta_start: of the training schedule, for the record.
        beta_end: likewise.
        beta_schedule: likewise.
        trained_betas: likewise.
        rescale_betas_zero_snr: likewise.
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
    ) -> None:
        self.init_noise_sigma = 1.0
        one = {"times": times or [], "alpha_bars": alpha_bars, "table": table, "steps": steps}
        self.chains = {
            chain.get("steps") or len(chain["times"]): chain for chain in budgets or [one]
        }
        self.chain = max(self.chains.items())[1]
        self.timesteps = torch.tensor(self.chain["times"])
        self.known: list[torch.Tensor] = []

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None
    ) -> None:
        """Accept a number of steps that this model was finetuned for.

        Raises:
            ValueError: any other number, or a model that was finetuned with another sampler.
        """
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
        self.timesteps = torch.tensor(self.chain["times"], device=device)
        self.known = []

    def scale_model_input(
        self, sample: torch.Tensor, timestep: float | None = None
    ) -> torch.Tensor:
        """Nothing to scale."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> FewStepOutput | tuple[torch.Tensor]:
        """From the sample at this time to the sample at the next."""
        times, table = np.asarray(self.chain["times"], dtype=np.float64), self.chain.get("table")
        if table is None:
            i = int(np.abs(times - float(timestep)).argmin())
        else:  # whose calls are in order, and may repeat a time
            self.known = self.known or [sample]
            i = len(self.known) - 1
        abars = self.chain["alpha_bars"]
        abar_t = abars[i]
        abar_s = abars[i + 1] if i + 1 < len(times) else 1.0
        alpha_t, sigma_t = abar_t**0.5, (1 - abar_t) ** 0.5
        eps = model_output[:, : sample.shape[1]]
        if self.config.prediction_type == "sample":
            eps = (sample - alpha_t * eps) / sigma_t
        elif self.config.prediction_type == "v_prediction":
            eps = alpha_t * eps + sigma_t * sample
        x_0 = (sample - sigma_t * eps) / alpha_t
        if self.config.clip_sample:
            x_0 = x_0.clamp(-1, 1)
        if table is None:
            x_s = abar_s**0.5 * x_0 + (1 - abar_s) ** 0.5 * eps
        else:
            self.known.append(x_0)
            x_s = sum(w * x for w, x in zip(table[i], self.known, strict=True))
        return FewStepOutput(x_s, x_0) if return_dict else (x_s,)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)
