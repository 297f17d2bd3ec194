r"""The one loop that walks K chosen times, differentiably.

A sampler starts from white noise x_T at the first of its times and steps from each time t to the
next, s, and from the last to the data (s = None, alpha_s = 1, sigma_s = 0). It asks the schedule
for alpha_t and sigma_t, and does not know which process they are of. What a *step* does is
the family's affair; the walk, the count of network calls and the recomputation are this file's.

Gradients are the caller's decision: under ``torch.no_grad()`` the loop draws samples, otherwise
it can be differentiated with respect to the denoiser's weights and to x_T.

Recomputation: only the network call is recomputed in the backward pass, never the arithmetic
around it, so that what is kept between forward and backward is one latent a call, and samplers
that remember earlier steps stay right.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from mmd_ddm.maths.pixels import clamp_straight_through
from mmd_ddm.maths.schedules import betas_of
from mmd_ddm.maths.times import check_times
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.fingerprint import code_sha256, key_of, settings_of, source_sha256
from mmd_ddm.samplers.recompute import recomputed

__all__ = ["Sampler", "Walk", "choose_order"]

T = TypeVar("T")
_FEW = 8  # steps, below which orders above 2 do harm
# On what is drawn, beside the denoiser, which has a fingerprint of its own.
_WITHOUT_EFFECT = {"denoiser", "keep", "nfe", "recompute", "trained_calls", "trained_steps"}


class Walk:
    """What one walk carries from step to step.

    Attributes:
        nfe: network calls so far.
        trained_calls: those of them that take a gradient.
        trains: whether those of this step take one.
        history: for multistep families, whatever they keep of earlier steps.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        recompute: bool,
        keep: int = 0,
        condition: Condition | None = None,
        guidance: float = 1.0,
    ) -> None:
        self._denoiser = denoiser
        self._condition = condition
        self._guidance = guidance
        self._recompute = recompute
        self._keep = keep
        self.nfe = 0
        self.trained_calls = 0
        self.trains = True
        self.history: list[Any] = []

    def predict(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """``(x_0, eps)`` at time t: from one network call, or from two with guidance.

        Where the step takes no gradient, it is what the network says that is constant, not x_0.
        """
        told = self.ask(self._denoiser, x_t, t, self._condition)
        if self._guidance != 1:
            free = self.ask(self._denoiser, x_t, t, self._denoiser.no_class(x_t.shape[0]))
            told = torch.lerp(free, told, self._guidance)
        return self._denoiser.pair(x_t, t, told)

    def eps(self, x_t: Float[Tensor, "n c h w"], t: float) -> Float[Tensor, "n c h w"]:
        """Of the same, what many solvers want."""
        return self.predict(x_t, t)[1]

    def ask(self, function: Callable[..., T], *inputs: Any) -> T:
        """One network call of another kind: counted, and recomputed if the sampler says so."""
        self.nfe += 1
        with_gradient = self.trains and torch.is_grad_enabled()
        self.trained_calls += with_gradient
        if with_gradient and self._recompute and self.trained_calls > self._keep:
            return recomputed(function, inputs, self._denoiser.parameters())
        with torch.set_grad_enabled(with_gradient):
            return function(*inputs)


class Sampler(nn.Module, ABC):
    """A denoiser, the times it is asked at, and a rule to step between them.

    Args:
        denoiser: the network, seen as the pair (x_0, eps).
        times: strictly decreasing, of its schedule.
        clip: clamp each prediction of x_0 to [-1, 1]. The gradient passes straight through.
        recompute: recompute every network call in the backward pass instead of keeping its
            activations.

    Attributes:
        schedule: what the steps take alpha_t and sigma_t from; the denoiser's.
        stochastic: whether a step adds noise (then `forward` needs ``noise``).
        of_betas: whether its rule is written in betas, which other processes have not.
        of_classes: whether it asks under classes; others refuse class-conditional models.
        keep: with ``recompute``, the first so many of the calls that take a gradient keep their
            activations all the same: where memory allows, each saves one recomputation.
        guidance: w of classifier-free guidance, u + w (c - u) of what the network says under the
            classes, c, and under none, u: two network calls a step, unless w = 1, which is c.
        trained_steps: whose network calls take a gradient, by index; what the others answer is
            constant. None is all.
        nfe: network calls of the last walk.
        trained_calls: those of them that took a gradient.

    References:
        Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022.
        Clark et al., "Directly Fine-Tuning Diffusion Models on Differentiable Rewards", 2024,
        Sec. 4 (DRaFT-K: the gradient of the last steps alone).
    """

    stochastic = False
    guidance = 1.0
    of_betas = False
    of_classes = True

    def __init__(
        self,
        denoiser: Denoiser,
        times: Sequence[float],
        *,
        clip: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        if self.of_betas:
            betas_of(self.schedule, type(self).__name__)
        if denoiser.classes and not self.of_classes:
            raise ValueError(
                f"{type(self).__name__} does not know classes, which this model draws: take ddim, "
                "unipc, dpm-solver++-2m, ipndm, deis or heun"
            )
        self.times = check_times(times, self.schedule)
        self.clip = clip
        self.recompute = recompute
        self.keep = 0
        self.trained_steps: Collection[int] | None = None
        self.nfe = self.trained_calls = 0

    @property
    def fingerprint(self) -> str:
        """Of all that decides what is drawn: the network, this chain, and the code of both."""
        of_a_walk = {key for key in vars(self) if key.startswith("_")}
        about = settings_of(self, _WITHOUT_EFFECT | of_a_walk)
        kind = type(self)
        code = [code_sha256(), kind.__qualname__, source_sha256(kind)]
        return key_of(code, self.denoiser.fingerprint, about, self.constants())

    def constants(self) -> list[Any]:
        """What else a step reads, as JSON values: see `Denoiser.beside`."""
        return []

    @property
    def draws(self) -> int:
        """How many standard normal images a sample takes: x_T, and one a step if stochastic."""
        return 1 + len(self.times) * self.stochastic

    def forward(
        self,
        x_T: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "k n c h w"] | None = None,
        condition: Condition | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Walk from noise to data.

        Args:
            x_T: standard normal, or images that `diffuse` noised; both of the scale of z.
            noise: standard normal, one a step; read by stochastic samplers only.
            condition: that the images are drawn under, of a class-conditional model.

        Raises:
            ValueError: a stochastic sampler without noise.
        """
        if self.stochastic and noise is None:
            raise ValueError(f"{type(self).__name__} adds noise at every step: pass noise")
        walk, x_t = self.walk(condition), self.begin(x_T)
        for i, (t, s) in enumerate(zip(self.times, (*self.times[1:], None), strict=True)):
            walk.trains = self.trained_steps is None or i in self.trained_steps
            z = noise[i] if self.stochastic and noise is not None else None
            x_t = self.step(x_t, t, s, walk, z)
        self.nfe, self.trained_calls = walk.nfe, walk.trained_calls
        return x_t

    def walk(self, condition: Condition | None = None) -> Walk:
        """One that asks as this sampler does, of calls that are no walk of it."""
        return Walk(self.denoiser, self.recompute, self.keep, condition, self.guidance)

    def begin(self, x_T: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The state that a walk begins with, of the scale of the first time."""
        start = self.schedule.start(self.times[0])
        return x_T if start == 1 else start * x_T

    def diffuse(
        self, x_0: Float[Tensor, "n c h w"], z: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Images noised to the first of the times, for walks that do not start from white noise.

        Args:
            x_0: images in [-1, 1], from a faster model for instance.
            z: standard normal.

        References:
            Lyu et al., "Accelerating Diffusion Models via Early Stop of the Diffusion Process",
            2022 (ES-DDPM).
        """
        t = self.times[0]
        alpha_t, sigma_t = self.schedule(t)
        return (alpha_t * x_0 + sigma_t * z) / self.schedule.start(t)

    def draw(self, n: int, *, seed: int = 0, batch_size: int = 0) -> UInt8[Tensor, "n c h w"]:
        """Draw n images; the arguments are those of `mmd_ddm.samplers.draw.draw`."""
        from mmd_ddm.samplers.draw import draw  # which is written for samplers

        return draw(self, n, seed=seed, batch_size=batch_size)[0]

    @abstractmethod
    def step(self, x_t: Tensor, t: float, s: float | None, walk: Walk, z: Tensor | None) -> Tensor:
        """From x_t to x_s.

        Args:
            x_t: at time t, shape [n, c, h, w].
            t: now.
            s: next, less than t; None is the data.
            walk: asks the network, ``walk.predict(x_t, t)``, and remembers.
            z: standard normal noise of this step, for stochastic samplers.
        """

    def x_0(self, x_t: Tensor, eps: Tensor, t: float) -> Tensor:
        """The x_0 that goes with an eps, where alpha_t > 0, clamped if the sampler clips."""
        alpha_t, sigma_t = self.schedule(t)
        return self.clamped((x_t - sigma_t * eps) / alpha_t)

    def clamped(self, x_0: Tensor) -> Tensor:
        """A prediction of x_0, clamped if the sampler clips."""
        return clamp_straight_through(x_0) if self.clip else x_0


def choose_order(sampler: Sampler, order: int, highest: int) -> int:
    """The order of a multistep sampler that has all from 1 to the highest.

    Args:
        sampler: with its times.
        order: that a person asked for; 0 takes the highest, as published, from 8 steps on, and at
            most 2 below, where polynomials through so distant points overshoot.
        highest: as published.

    Raises:
        ValueError: an order the sampler does not have.
    """
    if not 0 <= order <= highest:
        name = type(sampler).__name__
        raise ValueError(
            f"{name} has orders 1 to {highest}, and 0 for its own choice; got {order}"
        )
    few = len(sampler.times) < _FEW
    return order or (min(highest, 2) if few else highest)
