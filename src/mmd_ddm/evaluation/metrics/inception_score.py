r"""The inception score: images that a classifier is sure of, of all its classes.

    IS = exp E_x KL(p(c | x) || p(c)),   its mean over 10 parts in torch-fidelity's random order

References:
    Salimans et al., "Improved Techniques for Training GANs", 2016.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["inception_score"]

_PARTS, _SEED = 10, 2020  # those of torch-fidelity


def inception_score(
    x: Float[Tensor, "n d"], logits: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """``(IS, its standard deviation over the parts)`` of features.

    Args:
        x: features.
        logits: maps them to scores of the classes, without bias; called a part at a time, so
            that the scores of all images are never held together.

    Raises:
        ValueError: fewer vectors than parts.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    n = len(x)
    if n < _PARTS:
        raise ValueError(f"the inception score is of {_PARTS} parts; got {n} vectors")
    order = torch.from_numpy(np.random.RandomState(_SEED).permutation(n)).to(x.device)
    scores = []
    for i in range(_PARTS):
        part = x[order[i * n // _PARTS : (i + 1) * n // _PARTS]]
        found = isc_features_to_metric(logits(part), splits=1, shuffle=False)
        scores.append(found[KEY_METRIC_ISC_MEAN])
    return float(np.mean(scores)), float(np.std(scores))
