"""How the iterations of a run are made to fit, and how that is shown."""

from collections.abc import Sequence
from pathlib import Path

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.features.registry import FeatureExtractor
from mmd_ddm.runs.folder import read_events
from mmd_ddm.runs.launch import world
from mmd_ddm.runs.progress import Progress
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.memory_plan import (
    Choice,
    Costs,
    choices,
    choose,
    free_memory,
    halves_of,
    measure,
)

__all__ = ["describe_choice", "fit", "table_of_choices"]


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
    costs, n = measure(sampler, phis), _share(config)
    budget = free_memory(sampler.denoiser.device)
    choice = choose(costs, n, budget, micro_batch=micro_batch, recompute=config.recompute)
    if choice.recompute:
        progress.say(f"{n} images an iteration do not fit at once: {_said(costs, n, choice)}")
    return choice


def table_of_choices(config: FinetuneConfig, costs: Costs, budget: int) -> list[tuple[str, ...]]:
    """A line of cells a micro-batch, each with as many calls kept as fit."""
    n = _share(config)
    lines: list[tuple[str, ...]] = []
    for micro_batch in halves_of(min(n, costs.most)):
        every = choices(costs, micro_batch)
        fitting = [choice for choice in every if costs.memory(n, choice) <= budget]
        choice = min(fitting, key=lambda c: costs.seconds(n, c)) if fitting else every[-1]
        note = "" if fitting else "does not fit"
        lines.append((str(micro_batch), *_cells(costs, n, choice), note))
    return lines


def describe_choice(config: FinetuneConfig, costs: Costs, budget: int) -> str:
    """What a run would choose.

    Raises:
        ValueError: not even one image at a time fits.
    """
    n = _share(config)
    choice = choose(costs, n, budget, micro_batch=config.micro_batch, recompute=config.recompute)
    return f"chosen: {_said(costs, n, choice)}; {budget / 2**30:.3g} GiB may be taken"


def _share(config: FinetuneConfig) -> int:
    """Images of the largest share of the batch."""
    return -(-config.batch_size // world())


def _cells(costs: Costs, n: int, choice: Choice) -> tuple[str, str, str]:
    kept = f"{choice.keep} of {costs.calls}" if choice.recompute else "all"
    gib, seconds = costs.memory(n, choice) / 2**30, costs.seconds(n, choice)
    return kept, f"{gib:.3g} GiB", f"{seconds:.3g} s"


def _said(costs: Costs, n: int, choice: Choice) -> str:
    kept, memory, seconds = _cells(costs, n, choice)
    return f"micro-batch {choice.micro_batch}, {kept} calls kept, {memory}, {seconds} an iteration"
