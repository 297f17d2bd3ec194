"""The whole chain as one graph: noise in, pixels out, for whoever has not this package.

What a chain asks for, `mmd_ddm.samplers.table`, is written out with its numbers as constants, so
that a trace meets a network, sums and clamps, whatever the solver. The number of images stays
open: an upsampler of diffusers, which asks whether it is 64 or more, is replaced by one that does
not ask.
"""

from copy import deepcopy

from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.models.conditions import Condition
from mmd_ddm.samplers.base import Sampler, Walk
from mmd_ddm.samplers.ode import combine
from mmd_ddm.samplers.table import Question, questions_of

__all__ = ["ChainGraph", "traceable"]


class ChainGraph(nn.Module):
    """A deterministic chain from its noise to pixels.

    Args:
        sampler: whose denoiser is copied, to the CPU, in float32.

    Attributes:
        questions: what it asks for.
        start: the deviation of the noise that it begins with.

    Raises:
        ValueError: a sampler that adds noise, or asks for derivatives.
    """

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        questions = questions_of(sampler)
        if questions is None:
            raise ValueError(
                f"{type(sampler).__name__} cannot be one graph from noise to images, for it adds "
                "noise at every step or asks for derivatives: take ddim, unipc, dpm-solver++-2m, "
                "ipndm, deis or heun"
            )
        self.questions: list[Question] = questions
        self.start = sampler.schedule.start(sampler.times[0])
        self.guidance = sampler.guidance
        self.denoiser = deepcopy(sampler.denoiser).cpu().eval().requires_grad_(False)
        self.denoiser.autocast = None
        self.denoiser.schedule = sampler.schedule  # which a solver may have of its own
        traceable(self.denoiser.network)

    def forward(
        self, noise: Float[Tensor, "n c h w"], label: Int64[Tensor, " n"] | None = None
    ) -> UInt8[Tensor, "n c h w"]:
        """Draw.

        Args:
            noise: standard normal.
            label: the class of each image, of a model with classes.
        """
        condition = None if label is None else Condition.of_labels(label)
        walk = Walk(self.denoiser, False, condition=condition, guidance=self.guidance)
        known = [self.start * noise]
        for time, weights in self.questions:
            shares = [(w, x) for w, x in zip(weights, known, strict=True) if w]
            state = combine(*zip(*shares, strict=True))
            known.append(state.clamp(-1, 1) if time is None else walk.predict(state, time)[0])
        return to_uint8(self.denoiser.to_images(state))


class _Upsample(nn.Module):
    """Twice as many pixels a side, then a convolution."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Float[Tensor, "n c h w"], size: None = None) -> Float[Tensor, "n c H W"]:
        answer: Tensor = self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return answer


def traceable(network: nn.Module) -> None:
    """Replace, in place, what a trace with an open number of images cannot follow."""
    from diffusers.models.upsampling import Upsample2D

    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Upsample2D) and layer.use_conv and layer.norm is None:
                setattr(parent, name, _Upsample(layer.conv))
