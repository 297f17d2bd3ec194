"""A chain whose own numbers are trained (``trained = times``, ``all+sampler`` ...)."""

from collections.abc import Sequence
from dataclasses import asdict, replace

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import build_sampler
from mmd_ddm.models.chain_table import ChainTable
from mmd_ddm.models.export import Budget
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.learned import Trainable
from mmd_ddm.samplers.table import table_of

__all__ = ["chain_tables", "learned_chain", "trainable_sampler"]


def trainable_sampler(
    chain: ChainConfig, denoiser: Denoiser, numbers: str, *, recompute: bool = False
) -> Sampler:
    """The chain as a sampler, with weights of its own if any are to be trained.

    Args:
        chain: where it begins.
        denoiser: that walks it.
        numbers: ``times``, ``coefficients`` or both, ``sampler``; ``ggdm``, coefficients that keep
            the marginals, or ``ggdm+times``; empty for none.
        recompute: as in `Sampler`.

    Raises:
        ValueError: a chain that has no numbers to train.
    """
    start = build_sampler(chain, denoiser, recompute=recompute)
    if not numbers:
        return start

    def at(times: Sequence[float]) -> Sampler:
        return build_sampler(replace(chain, times=tuple(times)), denoiser)

    return Trainable(
        start,
        at,
        times=numbers in ("times", "sampler", "ggdm+times"),
        coefficients=numbers != "times",
        marginals=numbers.startswith("ggdm"),
    )


def chain_tables(chains: Sequence[ChainConfig], denoiser: Denoiser) -> list[Budget]:
    """What an export holds of a model's budgets: each with its table, if it has one."""
    return [(asdict(one), table_of(build_sampler(one, denoiser))) for one in chains]


def learned_chain(sampler: Sampler, chain: ChainConfig) -> tuple[ChainConfig, ChainTable | None]:
    """What a sampler has become: a chain, and its table if it has one.

    With the times alone it is the solver that it was, at other times.

    Args:
        sampler: of `trainable_sampler`, trained.
        chain: where it began.
    """
    if not isinstance(sampler, Trainable):
        return chain, table_of(sampler)
    table = sampler.table()
    chain = replace(chain, times=table.times)
    if sampler.offsets.requires_grad:
        sampler.denoiser.beside["table"] = table
        chain = replace(chain, sampler="learned", order=0)
    return chain, table
