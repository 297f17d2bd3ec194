"""What the jobs give back: the record that lies in their folder, and ways to go on from it."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.evaluation.verdict import Verdict, verdict
from mmd_ddm.jobs.build import Model, build_sampler, load_model, name_null_label
from mmd_ddm.jobs.learned import chain_tables, learned_chain
from mmd_ddm.jobs.origin import Origin
from mmd_ddm.models.export import make_pipeline
from mmd_ddm.runs.files import read_json
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.samplers.base import Sampler

__all__ = ["FinetuneResult", "Results", "load_result"]


@dataclass(frozen=True)
class Results:
    """What a job found and where it lies.

    Attributes:
        record: as JSON holds it; of an evaluation or a comparison protocol, spaces and rows.
        folder: that holds what was written; None if nothing was.
    """

    record: dict[str, Any]
    folder: Path | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One a chain; only evaluations and comparisons have them."""
        return list(self.record.get("rows", ()))


@dataclass(frozen=True)
class FinetuneResult:
    """A finished finetuning.

    Attributes:
        folder: of the run.
        config: its settings.
        model: the finetuned one, with its chain.
        record: the content of ``results.json``; empty if it was not judged.
    """

    folder: Path
    config: FinetuneConfig
    model: Model
    record: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Base, base at more steps, finetuned; of several budgets at each."""
        return list(self.record["rows"])

    @property
    def verdict(self) -> Verdict:
        """Whether the gain is real."""
        return verdict(self.record)

    @property
    def best_iteration(self) -> int:
        """The iteration that was kept."""
        return int(self.record["protocol"]["kept_iteration"])

    @property
    def chain(self) -> ChainConfig:
        """What the model was finetuned for."""
        return self.model.chain or self.config.chain

    @property
    def sampler(self) -> Sampler:
        """The finetuned chain: ``result.sampler.draw(64, seed=0)``."""
        return build_sampler(self.chain, self.model.denoiser)

    @cached_property
    def base(self) -> Model:
        """The model it began with.

        Raises:
            ValueError: it is not there any more, or is another one now.
        """
        base = load_model(self.config.model, self.model.denoiser.device, self.config.precision)
        name_null_label(base.denoiser, self.config.condition.null_label)
        base.denoiser.hold(self.config.trained_weights)
        began_with = read_json(self.folder / "run.json").get("inputs", {}).get("model_sha256")
        # Before 0.2 it was the hash of the weights alone.
        if began_with not in (None, base.denoiser.sha256, weights_sha256(base.denoiser.network)):
            raise ValueError(
                f"{self.config.model} has changed since {self.folder} was finetuned from it"
            )
        return base

    @property
    def samplers(self) -> dict[str, Sampler]:
        """The chain over ``base``, as it was given, and over ``finetuned``."""
        chain = self.config.chain if self.config.trained_numbers else self.chain
        return {
            "base": build_sampler(chain, self.base.denoiser),
            "finetuned": self.sampler,
        }

    @property
    def hashes(self) -> dict[str, str]:
        """Of the weights of both."""
        return {
            "base": weights_sha256(self.base.denoiser.network),
            "finetuned": weights_sha256(self.model.denoiser.network),
        }

    def pipeline(self) -> Any:
        """The finetuned model as a diffusers pipeline: what ``model/`` in the folder holds."""
        denoiser, config = self.model.denoiser, self.model.scheduler_config
        _, table = learned_chain(self.sampler, self.chain)
        budgets = chain_tables(self.model.budgets, denoiser)
        return make_pipeline(denoiser, config, asdict(self.chain), table, budgets)


def load_result(run: str | Path, device: torch.device) -> FinetuneResult:
    """A finished finetuning from its folder.

    Raises:
        ValueError: no such run.
    """
    folder = Path(run)
    origin = Origin.read(folder)
    if origin is None or not (folder / "model").is_dir():
        raise ValueError(f"{run} is no finished run of finetune or demo")
    judged = folder / "results.json"
    return FinetuneResult(
        folder,
        origin.config,
        load_model(str(run), device, origin.config.precision),
        read_json(judged) if judged.is_file() else {},
    )
