"""What is said when a Gaussian kernel sees nothing: features lie so far away that it is 0."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.maths.kernels import Gaussian, median_sigma
from mmd_ddm.maths.pixels import clamp_hard
from mmd_ddm.models.conditions import Condition
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.objective import Objective

__all__ = ["vanished_words"]


@torch.no_grad()
def vanished_words(
    sampler: Sampler,
    objectives: Sequence[Objective],
    x_T: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "k n c h w"] | None,
    condition: Condition | None = None,
) -> str:
    """Of a gradient that is exactly 0; with the bandwidths, space by space, under which it is not.

    Args:
        sampler: the chain, which draws them once more.
        objectives: the spaces to match.
        x_T: standard normal noise.
        noise: of each step, for stochastic samplers.
        condition: that they are drawn under.
    """
    images = clamp_hard(sampler.denoiser.to_loss(sampler(x_T, noise, condition)))
    wide = [
        f'objective.kernel = "gaussian:{median_sigma(o.features(images), o.bank):.4g}" '
        f"(the median heuristic in {o.phi.name})"
        for o in objectives
        if isinstance(o.kernel, Gaussian)
    ]
    words = "its gradient is exactly 0"
    if wide:
        words += f": the Gaussian kernel is 0 so far from the data; set {' or '.join(wide)}"
    return words
