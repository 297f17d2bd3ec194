"""The settings that did best at K steps, for all that a person leaves open (``recipe = auto``).

They are what was measured on small models (docs/results-every-k.md), carried over to others by one
rule: a larger network wants a lower rate.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.jobs.build import Model, load_model

__all__ = ["complete", "recipe", "words"]

_MEASURED_WITH = 1.54e6  # weights of the network that the rates below were found for
_FEW = 8  # steps, below which the whole chain is trained


def recipe(steps: int, weights: int) -> dict[str, Any]:
    """Settings of `FinetuneConfig` for K steps of a network.

    The rate falls with the root of the number of weights: from the 2.5e-5 that was best for
    1.5 million to about the paper's 5e-6 for 36 million.

    Args:
        steps: K.
        weights: of the network, how many.
    """
    few = steps < _FEW
    rate = 2.5e-5 if few else 1.5e-5
    return {
        "chain": {
            "sampler": "unipc",
            "order": min(steps, 3),
            "spacing": "midpoint" if steps > 2 else "trailing",
            "backward": "all" if few else "last-3",
        },
        "iterations": 100 if few else 60,
        "batch_size": 48,
        "lr": float(f"{rate * (_MEASURED_WITH / weights) ** 0.5:.1e}"),
        "cosine": True,
        "ema_decay": 0.9,
        "grad_clip": 0.5,
    }


def complete(settings: Mapping[str, Any], model: Model | None = None) -> dict[str, Any]:
    """These settings, and those of the recipe that they name beside them.

    Args:
        settings: nested, of `FinetuneConfig`.
        model: in place of the one that they name.

    Raises:
        ValueError: a model that cannot be loaded.
    """
    own = deepcopy(dict(settings))
    if own.get("recipe") != "auto":
        return own
    chain = own.get("chain", {})
    steps = len(chain.get("times", ())) or chain.get("steps", ChainConfig.steps)
    network = load_model(model or own["model"], "cpu").denoiser.network
    found = recipe(steps, sum(weight.numel() for weight in network.parameters()))
    if "sampler" in chain:  # orders are of a sampler
        del found["chain"]["sampler"], found["chain"]["order"]
    if "times" in chain:
        del found["chain"]["spacing"]
    return {**found, **own, "chain": {**found["chain"], **chain}}


def words(config: FinetuneConfig) -> str:
    """How it is trained, in a line."""
    chain, falls = config.chain, " on a cosine" * config.cosine
    order = f" of order {chain.order}" * bool(chain.order)
    return (
        f"recipe {config.recipe}: {chain.sampler}{order}, gradient of {chain.backward} steps, "
        f"{config.iterations:,} iterations of {config.batch_size}, rate {config.lr:g}{falls}"
    )
