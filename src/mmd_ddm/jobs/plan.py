"""What an iteration of a finetuning takes, and how it is made to fit: ``mmd-ddm plan``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import (
    build_device,
    build_sampler,
    load_model,
    name_null_label,
    resolve_chains,
    say_notes,
)
from mmd_ddm.jobs.sizes import Sizes, sizes_of
from mmd_ddm.models.find import find_model
from mmd_ddm.models.load import is_stock
from mmd_ddm.models.lora import adapt, usually_trained
from mmd_ddm.runs.folder import read_events
from mmd_ddm.runs.launch import world
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.finetune import trained_steps
from mmd_ddm.training.memory_plan import (
    Choice,
    Costs,
    choices,
    choose,
    free_memory,
    halves_of,
    measure,
)

__all__ = ["Plan", "fit", "plan"]


@dataclass(frozen=True)
class Plan:
    """The costs of an iteration, and the choice.

    Attributes:
        costs: as measured.
        n: images of the batch, or of the largest share of it.
        budget: bytes that may be taken.
        choice: what a run would do.
        blocks: whether calls are computed again block by block.
    """

    costs: Costs
    n: int
    budget: int
    choice: Choice
    blocks: bool = False

    words = 0
    columns = ("micro-batch", "calls kept", "memory", "an iteration", "")

    def __str__(self) -> str:
        return f"chosen: {self.chosen}; {self.budget / 2**30:.3g} GiB may be taken"

    @property
    def chosen(self) -> str:
        """The choice, in words."""
        kept, memory, seconds = self._cells(self.choice)
        return (
            f"micro-batch {self.choice.micro_batch}, {kept} calls kept"
            f"{', blocks one by one' * self.blocks}, {memory}, {seconds} an iteration"
        )

    def lines(self) -> list[tuple[str, ...]]:
        """A line of cells a micro-batch, each with as many calls kept as fit."""
        lines: list[tuple[str, ...]] = []
        for micro_batch in halves_of(min(self.n, self.costs.most)):
            every = choices(self.costs, micro_batch)
            fitting = [c for c in every if self.costs.memory(self.n, c) <= self.budget]
            best = min(fitting, key=lambda c: self.costs.seconds(self.n, c), default=every[-1])
            note = "" if fitting else "does not fit"
            lines.append((str(micro_batch), *self._cells(best), note))
        return lines

    def _cells(self, choice: Choice) -> tuple[str, str, str]:
        kept = f"{choice.keep} of {self.costs.trained_calls}" if choice.recompute else "all"
        gib = self.costs.memory(self.n, choice) / 2**30
        return kept, f"{gib:.3g} GiB", f"{self.costs.seconds(self.n, choice):.3g} s"


def plan(config: FinetuneConfig, progress: Progress = silent) -> Plan | Sizes:
    """Measure one small step, and choose; of several budgets, the one of the most steps.

    Of a pipeline of latents or text all is counted from its configs, and nothing is loaded whole.

    Args:
        config: the settings.
        progress: told what is done.

    Raises:
        ValueError: not even one image at a time fits.
    """
    source = find_model(config.model)
    if is_stock(source):
        return sizes_of(config, source)
    device = build_device(config.device)
    denoiser = load_model(config.model, device, config.precision).denoiser
    name_null_label(denoiser, config.condition.null_label)
    say_notes(denoiser, progress)
    config = replace(config, trained=config.trained or usually_trained(denoiser.network))
    adapt(denoiser.network, config.trained_weights, config.lora_rank)
    phis = [make_features(name, denoiser.shape[0]).to(device) for name in config.losses]
    chain, budgets = resolve_chains(config, denoiser)
    longest = build_sampler((budgets or (chain,))[-1], denoiser)
    with progress.bar("one small step", 1) as bar:
        planned = _plan(config, longest, phis, config.micro_batch)
        bar(done=1)
    return planned


def fit(
    config: FinetuneConfig,
    sampler: Sampler,
    phis: Sequence[FeatureExtractor],
    out: Path,
    progress: Progress,
) -> Choice:
    """The choice for a run; one that is resumed keeps its micro-batch, and so its last digits.

    Raises:
        ValueError: not even one image at a time fits.
    """
    before = [event for event in read_events(out) if event.get("event") == "plan"]
    micro_batch = before[-1]["micro_batch"] if before else config.micro_batch
    planned = _plan(config, sampler, phis, micro_batch)
    if planned.choice.recompute:
        progress.say(f"{planned.n} images an iteration do not fit at once: {planned.chosen}")
    return planned.choice


def _plan(
    config: FinetuneConfig, sampler: Sampler, phis: Sequence[FeatureExtractor], micro_batch: int
) -> Plan:
    sampler.trained_steps = trained_steps(config, len(sampler.times), 0)
    n, costs = -(-config.batch_size // world()), measure(sampler, phis)
    budget = free_memory(sampler.denoiser.device)
    choosing = partial(choose, n=n, budget=budget, recompute=config.recompute)
    try:
        choice = choosing(costs, micro_batch=micro_batch)
    except ValueError:
        if not (config.recompute and sampler.denoiser.recompute_blocks()):
            raise
        costs = measure(sampler, phis)
        choice = choosing(costs, micro_batch=micro_batch)
    return Plan(costs, n, budget, choice, sampler.denoiser.blocks_again)
