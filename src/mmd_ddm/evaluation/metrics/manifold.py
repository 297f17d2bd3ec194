r"""Overlap of two sets of features, by balls around their members.

The ball of a vector reaches to the k-th nearest other vector of its own set. *Precision* is the
share of generated vectors inside a real ball, *recall* the share of real ones inside a generated
ball (k = 3, as in the ADM evaluator): torch-fidelity computes them. *Density* counts, for a
generated vector, the real balls it lies in, divided by k; *coverage* is the share of real balls
that hold a generated vector (k = 5). Density may exceed 1; outliers with large balls spoil it less
than precision. Distances are held 200 rows at a time.

References:
    Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019.
    Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["density_coverage", "precision_recall"]

_ROWS = 200


def precision_recall(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], k: int = 3
) -> tuple[float, float]:
    """``(precision, recall)`` of generated features x against real ones y.

    Raises:
        ValueError: no more than k vectors in a set.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    _check(x, y, k)
    found = prc_features_to_metric(
        x,
        y,
        prc_neighborhood=k,
        prc_batch_size=_ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return found["precision"], found["recall"]


def density_coverage(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], k: int = 5
) -> tuple[float, float]:
    """``(density, coverage)`` of generated features x against real ones y.

    Raises:
        ValueError: no more than k vectors in a set.
    """
    from torch_fidelity.metric_prc import calc_cdist_part  # in parts: torch.cdist copies all of y

    _check(x, y, k)
    # The nearest of its own set is the vector itself.
    radii = torch.cat(
        [calc_cdist_part(r, y, _ROWS).kthvalue(k + 1).values for r in y.split(_ROWS)]
    )
    inside, covered = 0, torch.zeros_like(radii, dtype=torch.bool)
    for rows in x.split(_ROWS):
        hits = calc_cdist_part(rows, y, _ROWS) < radii
        inside += int(hits.sum())
        covered |= hits.any(0)
    return inside / (k * len(x)), float(covered.float().mean())


def _check(x: Tensor, y: Tensor, k: int) -> None:
    fewest = min(len(x), len(y))
    if fewest <= k:
        raise ValueError(f"the {k} nearest of a set need more than {k} vectors; got {fewest}")
