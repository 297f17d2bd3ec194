r"""Progressive distillation: one step of the student is two of its teacher's.

On images noised to a time t of the student's grid, with s its next time and m between them, the
teacher takes two DDIM steps without gradient, to

    x_s = ddim(ddim(x_t, t -> m), m -> s),

and the student's x_0 is to be the one with which a single step ends there:

    target = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)
    loss   = max(alpha_t^2 / sigma_t^2, 1) |x_0(x_t, t) - target|^2 / d

with d pixels; into the data, target = x_s. The weight is the larger of the errors of x_0 and eps.
In rounds, the student of each is the teacher of the next, which has half of its steps; the grids
nest, so that the last one is the chain's own. Perfect students compose to the first teacher's
chain: the K-step student is the K 2^rounds-step teacher, and no better.

References:
    Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.maths.times import nested_times
from mmd_ddm.models.conditions import Condition
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.losses.base import Cost, Loss, Source, draw_images, mean_of
from mmd_ddm.training.losses.endpoint import squared_error

__all__ = ["Progressive", "progressive_loss"]


def progressive_loss(
    chain: Sampler,
    teacher: Sampler,
    times: tuple[float, ...],
    steps: Int64[Tensor, " n"],
    x_0: Float[Tensor, "n c h w"],
    z: Float[Tensor, "n c h w"],
    condition: Condition | None = None,
) -> Float[Tensor, " n"]:
    """The weighted error of each image.

    Args:
        chain: of the student.
        teacher: asked at all of the times.
        times: of the teacher; those of even index are the student's.
        steps: which of the student's, for each image.
        x_0: images in [-1, 1].
        z: standard normal noise.
        condition: of the images.
    """
    levels = x_0.new_tensor([chain.schedule(t) for t in (*times, None)])
    alpha, sigma = levels[..., None, None, None].unbind(1)
    t, i = x_0.new_tensor(times), 2 * steps
    x_t = alpha[i] * x_0 + sigma[i] * z
    with torch.no_grad():
        walk, x_s = teacher.walk(condition), x_t
        for j in (i, i + 1):
            found, eps = walk.predict(x_s, t[j])
            x_s = alpha[j + 1] * teacher.clamped(found) + sigma[j + 1] * eps
        ratio = sigma[i + 2] / sigma[i]
        target = (x_s - ratio * x_t) / (alpha[i + 2] - ratio * alpha[i])
    student, _ = chain.walk(condition).predict(x_t, t[i])
    snr = (alpha[i] / sigma[i]).square().flatten()
    weight: Tensor = snr.clamp_min(1)
    return weight * squared_error(student, target)


class Progressive(Loss):
    """The times of a batch are stratified over the student's grid."""

    of_latents = False

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """See `Loss`: two calls of the teacher to one of the student, for any chain."""
        return Cost(2, 1)

    def __init__(self, config: FinetuneConfig, source: Source) -> None:
        super().__init__(config, source)
        self.beside = self.teacher.denoiser.network

    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """See `Loss`; the first iteration of a round makes the student its teacher."""
        config, rounds = self.config, self.config.progressive.rounds
        done, within = divmod(step, config.iterations // rounds)
        if done and not within and self.beside is not None:
            self.beside.load_state_dict(chain.denoiser.network.state_dict())
        times = chain.times
        for _ in range(rounds - done):
            times = nested_times(times, data=chain.schedule.data)
        x_0, z, condition, draw = draw_images(config, chain, self.source, step)
        n, k = len(x_0), len(times) // 2
        shift = torch.rand((), generator=draw, device=draw.device)
        steps = ((torch.arange(n, device=draw.device) + shift) * k / n).long().clamp(max=k - 1)

        def each(rows: slice) -> Tensor:
            return progressive_loss(
                chain, self.teacher, times, steps[rows], x_0[rows], z[rows],
                condition and condition[rows],
            )  # fmt: skip

        return mean_of(n, micro_batch, each)
