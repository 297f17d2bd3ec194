"""Does a model repeat its training images? Distances to the nearest of them, and two answers.

*Copying*: are samples nearer to the training images than real images which nobody trained on?
The one-sided Mann-Whitney test of the two sets of distances, as in the data-copying test of Meehan
et al.: under its null hypothesis a sample is the nearer one of a pair with probability 1/2.

*Authenticity*: a sample is authentic if it lies further from its nearest training image than that
image lies from its own nearest one (Alaa et al.; AuthPct is the share of such samples). Of real
images that nobody trained on many are not, up to half: their share belongs beside every other.

Neither tells copies from averages: blurred images lie near everything, above all in pixels.

References:
    Meehan, Chaudhuri, Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative
    Models", 2020.
    Alaa et al., "How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and
    Auditing Generative Models", 2022.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import mannwhitneyu
from torch import Tensor

__all__ = ["Nearer", "Nearest", "authentic", "nearer", "nearest"]


@dataclass(frozen=True)
class Nearest:
    """Neighbours of n vectors, nearest first.

    Attributes:
        distance: Euclidean, [n, k].
        index: of the neighbours in their set.
    """

    distance: Float[Tensor, "n k"]
    index: Int[Tensor, "n k"]


class Nearer(NamedTuple):
    """How one set of distances stands to another.

    Attributes:
        share: of all pairs, those in which the first is the smaller one; 1/2 where both are alike.
        p: one-sided, of a share as large as this among sets that are alike.
    """

    share: float
    p: float


def nearest(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], k: int = 1, *, block: int = 512
) -> Nearest:
    """The k vectors of y that are nearest to each of x, by distances in float64.

    Args:
        x: of samples.
        y: of training images.
        k: how many.
        block: rows of the distance matrix held at once.

    Raises:
        ValueError: fewer than k vectors in y.
    """
    if len(y) < k:
        raise ValueError(f"there are no {k} nearest of {len(y)} images; give more, or a lower k")
    y = y.to(torch.float64)
    found = [
        torch.cdist(rows, y).topk(k, largest=False) for rows in x.to(torch.float64).split(block)
    ]
    return Nearest(torch.cat([f.values for f in found]), torch.cat([f.indices for f in found]))


def authentic(found: Nearest, y: Float[Tensor, "m d"]) -> Bool[Tensor, " n"]:
    """Whether each sample is, by its neighbours among y.

    Raises:
        ValueError: y is one vector, which has no neighbour.
    """
    involved, place = found.index[:, 0].unique(return_inverse=True)
    # The nearest of all is the image itself.
    own = nearest(y[involved], y, 2).distance[:, 1]
    return found.distance[:, 0] > own[place]


def nearer(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> Nearer:
    """Whether distances x are smaller than distances y."""
    u, p = mannwhitneyu(x.cpu().numpy(), y.cpu().numpy(), alternative="less")
    return Nearer(1 - float(u) / (len(x) * len(y)), float(p))
