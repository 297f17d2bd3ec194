r"""The loss of one iteration and its exact gradient, at the memory of a micro-batch.

The MMD couples the whole batch: averaging the gradients of small batches, as gradient accumulation
does, is the gradient of another loss. Here the chain and the extractor run on a few images at a
time, each network call recomputed in the backward pass, and *one* backward pass goes through the
MMD of the whole batch. What lies between forward and backward is a latent a call and the features.

The other exact way is two passes: features without gradient, the loss's gradient with respect to
them, then a second pass a micro-batch with the same noise. At the same memory it calls the network
once more (docs/performance.md has both measured), so it is not here.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmd_ddm.data.images import batch
from mmd_ddm.maths.joint_mmd import joint_mmd2
from mmd_ddm.maths.mmd import mmd2
from mmd_ddm.maths.pixels import clamp_hard, clamp_straight_through
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs import ranks
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.recompute import recomputed
from mmd_ddm.training.losses.base import Loss, draw_batch
from mmd_ddm.training.objective import Objective

__all__ = ["MMD", "mmd_step"]


class MMD(Loss):
    """Eq. 7 of the objectives, all together."""

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`."""
        config, spaces = self.config, self.source.objectives
        x_T, noise, condition = draw_batch(config, chain, self.source, step)
        rows = None
        if config.objective.reference == "minibatch":
            rows = batch(len(spaces[0].bank), config.batch_size, config.seed, step)
        clamp = clamp_hard if config.objective.clamp == "hard" else clamp_straight_through
        return mmd_step(
            chain, spaces, x_T, noise, condition, rows=rows, micro_batch=micro_batch, clamp=clamp
        )


def mmd_step(
    sampler: Sampler,
    objectives: Sequence[Objective],
    x_T: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "k n c h w"] | None = None,
    condition: Condition | None = None,
    *,
    rows: Tensor | None = None,
    micro_batch: int = 0,
    clamp: Callable[[Tensor], Tensor] = clamp_straight_through,
) -> Float[Tensor, ""]:
    """The loss of one iteration (Eq. 7), to be differentiated.

    The chain runs on ``micro_batch`` images at a time; the MMD couples them all, so that the
    gradient is the whole batch's, not an average of small ones. Of several ranks each draws its
    share of the images; the loss is the whole batch's on all of them, and the sum of their
    gradients is its gradient.

    Args:
        sampler: the chain.
        objectives: the spaces to match.
        x_T: standard normal noise.
        noise: of each step, for stochastic samplers.
        condition: that the images are drawn under; its labels are matched where the objectives
            match classes.
        rows: compare with these rows of the bank only; None is all.
        micro_batch: images at once; 0 is the whole batch.
        clamp: of the images to [-1, 1], from `mmd_ddm.maths.pixels`.

    Raises:
        torch.OutOfMemoryError: on every rank, where one has not the memory for its images.
    """
    of = ranks.shares(len(x_T))
    mine = ranks.own(of)
    x_T, noise = x_T[mine], None if noise is None else noise[:, mine]
    labels, condition = (condition.labels, condition[mine]) if condition else (None, None)
    size = micro_batch or len(x_T)

    def features() -> list[Tensor]:
        parts = []
        for i in range(0, len(x_T), size):
            z = None if noise is None else noise[:, i : i + size]
            c = None if condition is None else condition[i : i + size]
            x_0 = sampler(x_T[i : i + size], z, c)
            images = clamp(sampler.denoiser.to_loss(x_0))
            parts.append([_features(o, images, sampler.recompute) for o in objectives])
        return [torch.cat(chunks) for chunks in zip(*parts, strict=True)]

    loss = x_T.new_zeros(())
    for objective, phi_x in zip(objectives, ranks.gather_all(features, of), strict=True):
        loss = loss + objective.weight * _mmd2(objective, phi_x, labels, rows)
    return loss


def _mmd2(
    objective: Objective, phi_x: Tensor, labels: Tensor | None, rows: Tensor | None
) -> Tensor:
    """Of images, or of images and their classes where these are matched."""
    o, bank = objective, objective.bank if rows is None else objective.bank[rows]
    if o.label_kernel is None or o.labels is None or labels is None:
        return mmd2(phi_x, bank, o.kernel, constant=o.constant, weights=o.bank_weights)
    of_bank = o.labels if rows is None else o.labels[rows]
    return joint_mmd2(phi_x, labels, bank, of_bank, o.kernel, o.label_kernel, constant=o.constant)


def _features(objective: Objective, images: Tensor, recompute: bool) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return recomputed(objective.features, [images], objective.phi.parameters())
    return objective.features(images)
