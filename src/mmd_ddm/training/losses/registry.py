"""The methods of finetuning, by name: a file each in this folder, docs/methods.md for people."""

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.losses.base import Loss, Source
from mmd_ddm.training.losses.consistency import Consistency
from mmd_ddm.training.losses.endpoint import EndPoint, Pairs
from mmd_ddm.training.losses.mmd import MMD
from mmd_ddm.training.losses.progressive import Progressive
from mmd_ddm.training.losses.reward import Reward
from mmd_ddm.training.losses.score import Score

__all__ = ["METHODS", "make_loss"]

METHODS: dict[str, type[Loss]] = {
    "mmd": MMD,
    "endpoint": EndPoint,
    "pairs": Pairs,
    "progressive": Progressive,
    "consistency": Consistency,
    "score": Score,
    "reward": Reward,
}


def make_loss(config: FinetuneConfig, source: Source, chain: Sampler) -> Loss:
    """The loss of ``config.method``.

    Args:
        config: the settings.
        source: what it learns from.
        chain: that it trains.

    Raises:
        ValueError: a chain that adds noise, or of latents, of a method that has no use for it.
    """
    method = METHODS[config.method]
    if chain.stochastic and not method.of_noise:
        raise ValueError(
            f"method {config.method} trains chains that add no noise, and {config.chain.sampler} "
            f"with eta = {config.chain.eta:g} does: take ddim, unipc, dpm-solver++-2m or another"
        )
    if chain.denoiser.latent_shape != chain.denoiser.shape and not method.of_latents:
        raise ValueError(
            f"method {config.method} learns from pixels, and {config.model} denoises latents: "
            "take mmd, endpoint, score or reward"
        )
    return method(config, source)
