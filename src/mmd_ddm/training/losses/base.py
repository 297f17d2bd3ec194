"""What one iteration of a finetuning lowers; the loop is the same for all methods.

A `Loss` is made once and asked for each iteration's scalar. All that it draws is named by (seed,
step), so that it depends on nothing else: a resumed run, a repeated iteration and several ranks
get the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from mmd_ddm.config import ConditionConfig, FinetuneConfig
from mmd_ddm.data.images import batch
from mmd_ddm.data.stored import Stored
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs import ranks
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.objective import Objective

__all__ = ["Cost", "Loss", "Source", "draw_batch", "draw_images", "drawn_labels", "mean_of"]


@dataclass(frozen=True)
class Source:
    """What a method may learn from; None is what it has no use for.

    Attributes:
        objectives: the spaces to match.
        labels: which condition each image to match has, of a conditional model: its class, or the
            number of its caption.
        images: to learn from, uint8.
        teacher: the base, as a chain of its own.
        reward: of images; one number each.
        progress: told what is drawn once.
        conditions: all of them by the numbers in ``labels``; by default they are classes.
    """

    objectives: Sequence[Objective] = ()
    labels: Int64[Tensor, " m"] | None = None
    images: UInt8[Tensor, "m c h w"] | Stored | None = None
    teacher: Sampler | None = None
    reward: FeatureExtractor | None = None
    progress: Progress = silent
    conditions: Condition | None = None

    def condition(self, labels: Int64[Tensor, " n"]) -> Condition:
        """What the network is told of these classes or captions."""
        return self.conditions[labels] if self.conditions else Condition.of_labels(labels)


@dataclass(frozen=True)
class Cost:
    """Calls of a network by a finetuning, counted in forward passes on one image.

    Attributes:
        plain: an image of a batch, without gradient.
        trained: likewise, differentiated, which costs three of them.
        once: passes before the first iteration.
    """

    plain: float
    trained: float
    once: int = 0

    @property
    def calls(self) -> float:
        """Of either kind."""
        return self.plain + self.trained

    @property
    def each(self) -> float:
        """Passes an image of a batch."""
        return self.plain + 3 * self.trained

    def iterations(self, forwards: int, batch_size: int) -> int:
        """How many of so many images each these passes pay for."""
        return int((forwards - self.once) / (batch_size * self.each) + 1e-9)


class Loss(ABC):
    """The loss of a method.

    Args:
        config: the settings.
        source: what it learns from.

    Attributes:
        of_noise: whether it can train chains that add noise.
        of_latents: whether it can train chains of latents; others learn from pixels.
        beside: a network that the method changes beside the one that is finetuned; it is saved
            with the state, and trained if its weights take a gradient.
    """

    of_noise = True
    of_latents = True
    beside: nn.Module | None = None

    def __init__(self, config: FinetuneConfig, source: Source) -> None:
        self.config, self.source = config, source

    @property
    def teacher(self) -> Sampler:
        """Of a method that has one."""
        assert self.source.teacher is not None
        return self.source.teacher

    @classmethod
    def cost(cls, config: FinetuneConfig, chain: Cost, teacher: int = 0) -> Cost:
        """What training takes; by default that of a chain that is trained through.

        Args:
            config: the settings.
            chain: what one image of the chain takes, see `mmd_ddm.training.finetune.walked_cost`.
            teacher: calls by the base's longer chain, where the method draws it.
        """
        return chain

    @abstractmethod
    def __call__(self, chain: Sampler, step: int, micro_batch: int) -> Float[Tensor, ""]:
        """Of iteration ``step``, to be differentiated.

        Args:
            chain: of the network that is finetuned.
            step: the iteration.
            micro_batch: images at once.
        """


def mean_of(
    n: int, micro_batch: int, each: Callable[[slice], Float[Tensor, " m"]]
) -> Float[Tensor, ""]:
    """The mean over a batch of what is one number an image; of several ranks each does its share.

    Args:
        n: images of the batch.
        micro_batch: images at once.
        each: of the images of a slice.
    """
    of = ranks.shares(n)
    mine = range(n)[ranks.own(of)]

    def parts() -> list[Tensor]:
        ends = [*mine[::micro_batch], mine.stop]
        return [torch.cat([each(slice(*pair)) for pair in pairwise(ends)])]

    return ranks.gather_all(parts, of)[0].mean()


def draw_batch(
    config: FinetuneConfig, sampler: Sampler, source: Source, step: int
) -> tuple[Tensor, Tensor | None, Condition | None]:
    """x_T, for stochastic samplers the noise of every step, and conditions: of (seed, step)."""
    denoiser = sampler.denoiser
    draw = generator(config.seed, 0, step, "finetune", denoiser.device)
    shape = (sampler.draws, config.batch_size, *denoiser.latent_shape)
    z = torch.randn(shape, generator=draw, device=denoiser.device)
    if source.labels is None:
        condition = denoiser.conditions(range(config.batch_size))
    else:
        found = drawn_labels(config.condition, source.labels, config.batch_size, config.seed, step)
        condition = source.condition(found).to(denoiser.device)
    return z[0], z[1:] if sampler.stochastic else None, condition


def draw_images(
    config: FinetuneConfig, sampler: Sampler, source: Source, step: int
) -> tuple[Tensor, Tensor, Condition | None, torch.Generator]:
    """A batch of images in [-1, 1], z, their classes, and what else to draw with, by its step."""
    assert source.images is not None
    device = sampler.denoiser.device
    rows = batch(len(source.images), config.batch_size, config.seed, step)
    x_0 = from_uint8(source.images[rows]).to(device)
    draw = generator(config.seed, 0, step, "finetune", device)
    condition = None
    if source.labels is not None:
        condition = source.condition(source.labels[rows]).to(device)
    return x_0, torch.randn(x_0.shape, generator=draw, device=device), condition, draw


def drawn_labels(
    config: ConditionConfig, labels: Int64[Tensor, " m"], n: int, seed: int, step: int
) -> Int64[Tensor, " n"]:
    """The classes that a batch is drawn under, named by (seed, step).

    Where classes are matched, they are drawn with equal chance, as many as give each of them
    ``config.each`` images, in turns; otherwise each image takes the class of an image to match.

    Args:
        config: whether classes are matched.
        labels: of the images to match.
        n: images of the batch.
        seed: of the run.
        step: the iteration.

    Raises:
        ValueError: a batch too small for two classes, where their pairs count.
    """
    draw = generator(seed, 0, step, "classes")
    if config.match == "ignore":
        return labels[torch.randint(len(labels), (n,), generator=draw)]
    classes, most = labels.unique(), max(n // config.each, 1)
    if config.match == "joint" and most == 1 < len(classes):
        raise ValueError(
            f"batch_size = {n} holds one class of condition.each = {config.each} images, and the "
            f"joint MMD is of two at least: set batch_size to {2 * config.each}, or more"
        )
    some = classes[torch.randperm(len(classes), generator=draw)[:most]]
    found: Tensor = some[torch.arange(n) % len(some)]
    return found
