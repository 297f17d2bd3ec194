"""A chain as numbers, which an exported model holds in its scheduler's config."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.fingerprint import weights_sha256

__all__ = ["ChainTable", "table_in"]


@dataclass(frozen=True)
class ChainTable:
    """A chain of n network calls; `mmd_ddm.samplers.table` says where the numbers come from.

    Attributes:
        times: of each call.
        alpha_bars: there.
        weights: row j is what the state after call j is made of: its share of the first state,
            then of x_0 as predicted in each call, zero for those to come.
    """

    times: tuple[float, ...]
    alpha_bars: tuple[float, ...]
    weights: Float[Tensor, "n n+1"]

    def rows(self) -> list[list[float]]:
        """The weights without those zeros."""
        return [row[:n] for n, row in enumerate(self.weights.tolist(), 2)]


def table_in(denoiser: Denoiser) -> ChainTable:
    """The table that was learned with this model, or came with it.

    Raises:
        ValueError: there is none, or that of other weights.
    """
    if "table" not in denoiser.beside:
        config, name = denoiser.scheduler_config, denoiser.source or "this model"
        if config.get("sampler") != "learned":
            raise ValueError(f"no learned sampler in {name}: finetune with trained = sampler")
        if config.get("table_weights") != weights_sha256(denoiser.network):
            raise ValueError(f"the learned sampler in {name} is of other weights")
        denoiser.beside["table"] = _read(config, name)
    found: ChainTable = denoiser.beside["table"]
    return found


def _read(config: dict[str, Any], name: str) -> ChainTable:
    try:
        times, abars, rows = (config[key] for key in ("times", "alpha_bars", "table"))
        n = len(rows)
        if [len(each) for each in (times, abars, *rows)] != [n, n, *range(2, n + 2)]:
            raise ValueError("it has rows of other lengths")
        filled = [[*map(float, row), *[0.0] * (n + 1 - len(row))] for row in rows]
        weights = torch.tensor(filled, dtype=torch.float64)
        return ChainTable(tuple(map(float, times)), tuple(map(float, abars)), weights)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the learned sampler in {name} is damaged: {error}") from error
