"""The base as a frozen chain that a method learns from."""

from copy import deepcopy
from dataclasses import replace

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.jobs.build import build_sampler
from mmd_ddm.maths.times import nested_times
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler

__all__ = ["teacher_of"]


def teacher_of(config: FinetuneConfig, chain: ChainConfig, denoiser: Denoiser) -> Sampler | None:
    """The teacher of ``config.method``, of a copy of the network; None if it has none.

    Args:
        config: the settings.
        chain: of the student, with its times.
        denoiser: the base, not trained yet.

    Raises:
        ValueError: a chain that cannot be walked, or adds noise.
    """
    tuned = config.method == "consistency" and not config.consistency.teacher
    if config.method in ("mmd", "reward") or tuned:
        return None
    own = config.teacher
    wanted = ChainConfig(own.steps, own.sampler, guidance=config.chain.guidance)
    if config.method not in ("endpoint", "pairs"):  # asked at times of the method's own
        wanted = replace(chain, guidance=config.chain.guidance)
    elif config.method == "endpoint" and own.local:
        times = nested_times(chain.times, own.local, denoiser.schedule.data)
        wanted = replace(wanted, times=times)
    teacher = build_sampler(wanted, deepcopy(denoiser).requires_grad_(False))
    if teacher.stochastic and config.method in ("endpoint", "pairs"):
        raise ValueError(f"a teacher adds no noise, and {own.sampler} does: take unipc or ddim")
    return teacher
