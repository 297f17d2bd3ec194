"""The settings that did best at K steps, for all that a person leaves open (``recipe = auto``).

They are what was measured on small models (docs/results-every-k.md), carried over to others by one
rule: a larger network wants a lower rate.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.jobs.build import Model, load_model
from mmd_ddm.maths.schedules import NoiseSchedule, Schedule
from mmd_ddm.settings import from_mapping

__all__ = ["complete", "recipe", "words"]

_MEASURED_WITH = 1.54e6  # weights of the network that the rates below were found for
_FEW = 5  # steps, below which the gradient of the whole chain is worth what it costs
_MANY = 8  # steps, from which on the same change of the weights does more
_START, _SECOND = 0.04, 0.44  # alpha of the first time, and how late a second one is
_END = 0.17  # sigma of the last time, at least: gains at less noise do not reach the judge


def recipe(
    steps: int, weights: int, schedule: Schedule, *, several: bool = False
) -> dict[str, Any]:
    """Settings of `FinetuneConfig` for K steps of a network.

    Many iterations at a low rate: one step of Adam moves every weight by the rate, most of them by
    chance, and what moves by chance costs in spaces that were not optimised. The rate falls with
    the root of the number of weights, so that the weights as a whole move as far. One or two steps
    begin where x_t is just white noise, not at T - 1, where the error of eps counts 1 / alpha
    times in x_0. Many steps end where x_t is still a little noisy. Where one model serves several
    K, the last calls of a long chain are not enough: its first ones are changed by the short
    chains. See docs/results-every-k.md.

    Args:
        steps: K.
        weights: of the network, how many.
        schedule: that it was trained with.
        several: whether K is the most of several numbers of steps.
    """
    few = steps < _FEW
    rate, iterations = (2.5e-5, 100) if few else (8.3e-6, 300) if steps < _MANY else (5e-6, 180)
    backward = "random-3" if several else "all" if few else "last-3"
    return {
        "chain": {
            "sampler": "unipc",
            "order": 3,
            **_times(steps, schedule),
            "backward": backward,
        },
        "iterations": 300 if several else iterations,
        "batch_size": 48,
        "lr": float(f"{rate * (_MEASURED_WITH / weights) ** 0.5:.1e}"),
        "cosine": True,
        "ema_decay": 0.9 if few else 0.95,
        "grad_clip": 0.5,
    }


def complete(settings: Mapping[str, Any], model: Model | None = None) -> dict[str, Any]:
    """These settings, and those of the recipe that they name beside them.

    Args:
        settings: nested, of `FinetuneConfig`.
        model: in place of the one that they name.

    Raises:
        ValueError: a model that cannot be loaded, or whatever `FinetuneConfig` refuses.
    """
    own = deepcopy(dict(settings))
    if own.get("recipe") != "auto":
        return own
    checked = from_mapping(FinetuneConfig, {**own, "recipe": "paper"})
    chain = own.get("chain", {})
    denoiser = load_model(model or checked.model, "cpu").denoiser
    weights = sum(weight.numel() for weight in denoiser.network.parameters())
    steps = len(checked.chain.times) or checked.chain.steps
    several = bool(checked.budgets)
    found = recipe(steps, weights, denoiser.schedule, several=several)
    taken = {"sampler", "order"} if "sampler" in chain else set()  # orders are of a sampler
    if {"times", "spacing"} & {*chain} or several:
        taken |= {"times", "spacing"}
    for key in taken:
        found["chain"].pop(key, None)
    return {**found, **own, "chain": {**found["chain"], **chain}}


def _times(steps: int, schedule: Schedule) -> dict[str, Any]:
    if not isinstance(schedule, NoiseSchedule):
        return {"spacing": "midpoint"}  # not measured
    T = len(schedule)
    if steps <= 2:
        start = next((t for t in range(T) if schedule(t)[0] <= _START), T - 1)
        return {"times": [start, round(_SECOND * start)][:steps]}
    end = next((t for t in range(T) if schedule(t)[1] >= _END), 0)
    half = T / (2 * steps)  # of a stride, which midpoints leave at both ends
    if half >= end:
        return {"spacing": "midpoint"}
    return {"times": [round(t) for t in np.linspace(T - half, end, steps)]}


def words(config: FinetuneConfig) -> str:
    """How it is trained, in a line."""
    chain, falls = config.chain, " on a cosine" * config.cosine
    order = f" of order {chain.order}" * bool(chain.order)
    name = "recipe auto: " if config.recipe == "auto" else ""
    lora = f", lora of rank {config.lora_rank}" * (config.trained_weights == "lora")
    name += f"method {config.method}, " * (config.method != "mmd")
    return (
        f"{name}{chain.sampler}{order}, gradient of {chain.backward} steps, "
        f"{config.iterations:,} iterations of {config.batch_size}, rate {config.lr:g}{falls}{lora}"
    )
