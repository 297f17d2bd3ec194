"""A finetuned model and the base it came from, to draw with both from the same noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmd_ddm.config import ChainConfig, FinetuneConfig, from_mapping
from mmd_ddm.evaluation.draw import draw
from mmd_ddm.jobs.build import Model, build_sampler, load_model
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import read_json
from mmd_ddm.runs.progress import Progress
from mmd_ddm.samplers.base import Sampler

__all__ = ["Couple", "load_couple"]


@dataclass(frozen=True)
class Couple:
    """Both models of a run.

    Attributes:
        config: of the finetuning.
        chain: that both are drawn with.
        models: ``base`` and ``finetuned``.
        hashes: of their weights.
    """

    config: FinetuneConfig
    chain: ChainConfig
    models: dict[str, Model]
    hashes: dict[str, str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.models["base"].denoiser.shape

    def samplers(self) -> dict[str, Sampler]:
        """The chain over either model."""
        return {name: build_sampler(self.chain, m.denoiser) for name, m in self.models.items()}

    def draw(self, n: int, seed: int, progress: Progress) -> dict[str, Tensor]:
        """As many images of either, uint8 [n, c, h, w], from the same noise."""
        return {name: _draw(name, s, n, seed, progress) for name, s in self.samplers().items()}


def load_couple(run: Path, device: torch.device) -> Couple:
    """Both models of a finished finetuning.

    Raises:
        ValueError: no such run, or a base that is not the one it began with.
    """
    about = read_json(run / "run.json")
    if about.get("verb") != "finetune" or not (run / "model").is_dir():
        raise ValueError(f"{run} is no finished run of finetune or demo")
    config = from_mapping(FinetuneConfig, about["settings"])
    models = {
        "base": load_model(config.model, device, config.precision),
        "finetuned": load_model(str(run), device, config.precision),
    }
    hashes = {name: weights_sha256(model.denoiser.network) for name, model in models.items()}
    if hashes["base"] != about.get("inputs", {}).get("model_sha256", hashes["base"]):
        raise ValueError(f"{config.model} has changed since {run} was finetuned from it")
    return Couple(config, models["finetuned"].chain or config.chain, models, hashes)


def _draw(name: str, sampler: Sampler, n: int, seed: int, progress: Progress) -> Tensor:
    with progress.bar(f"{name}, {len(sampler.times)} steps", n) as bar:
        return draw(sampler, n, seed=seed, on_batch=lambda k: bar(advance=k))[0]
