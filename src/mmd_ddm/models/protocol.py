r"""What every family of networks is to the rest of the house: a denoiser.

A denoiser answers one question: what are x_0 and eps in x_t = alpha_t x_0 + sigma_t eps? A family
says how its network is loaded and asked, and in which words it answers; the rest is here.

It is a base class, no bare protocol: samplers move, hook and checkpoint a ``torch.nn.Module``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmd_ddm.maths.predictions import pair
from mmd_ddm.maths.schedules import Schedule
from mmd_ddm.models.conditions import Condition
from mmd_ddm.runs.fingerprint import key_of, weights_sha256

__all__ = ["Denoiser"]


class Denoiser(nn.Module, ABC):
    """A network with the schedule it was trained with.

    Args:
        network: whose weights are trained.
        schedule: the noise schedule of its training.
        shape: of the images, (c, h, w).
        autocast: the type that the network computes in (``torch.bfloat16``); None for float32.

    Attributes:
        latent_shape: of what the chain walks: that of the images, or of their latents.
        prediction: what the network answers with, of `mmd_ddm.maths.predictions.PREDICTIONS`.
        source: the folder or hub id it was loaded from; empty if it was not.
        scheduler_config: of the model it was loaded from.
        clip: whether that says to clamp x_0 to [-1, 1] at every step.
        notes: of what was loaded and what was not used of it, for a person.
        classes: the names of the classes that it draws, by their labels; empty if it has none.
        null_label: the label that means no class; None if there is none.
        part: the name of the network in a pipeline.
        guides: whether its pipeline does guidance, as ``guidance_scale`` of its call.
        holds_midpoints: whether its pipeline leaves a scheduler's offset as it is.
        blocks_again: whether `recompute_blocks` was asked for.
        of_captions: whether it draws images under captions, which `encode` knows how.
        beside: constants of the model as it was loaded, which finetuning leaves as they are:
            Gamma, GENIE's head.
    """

    prediction = "epsilon"
    part = "unet"
    guides = False
    holds_midpoints = True
    of_captions = False
    blocks_again = False

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        shape: tuple[int, int, int],
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.shape = self.latent_shape = shape
        self.autocast = autocast
        self.source = ""
        self.scheduler_config: dict[str, Any] = {}
        self.clip = False
        self.notes: list[str] = []
        self.classes: tuple[str, ...] = ()
        self.null_label: int | None = None
        self.beside: dict[str, Any] = {}

    @abstractmethod
    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, condition: Condition | None = None
    ) -> Float[Tensor, "n c h w"]:
        """What the network says, in the words of `prediction`.

        Args:
            x_t: noisy images.
            t: one time for all, or a tensor with one each; fractional times are kept fractional.
            condition: what `conditions` gave.
        """

    def seen(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor
    ) -> tuple[Float[Tensor, "n c h w"], Tensor]:
        """The images and times that the network is called with."""
        told = self.schedule.network_time(t)
        if isinstance(told, Tensor):
            return x_t, told.to(x_t.device).expand(x_t.shape[0])
        # filled in on the device: a copy would wait for it
        return x_t, torch.full((x_t.shape[0],), told, device=x_t.device)

    def predict(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, condition: Condition | None = None
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """``(x_0, eps)``; the arguments are those of `forward`."""
        return self.pair(x_t, t, self(x_t, t, condition))

    def eps(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, condition: Condition | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Of the same."""
        return self.predict(x_t, t, condition)[1]

    def pair(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, output: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """``(x_0, eps)`` from what the network said of x_t."""
        if isinstance(t, Tensor):
            levels: tuple[Any, Any] = self.coefficients(t.to(x_t).expand(x_t.shape[0]))
        else:
            levels = self.schedule(t)
        return pair(x_t, output, *levels, self.prediction, **self.schedule.preconditioning)

    def stock_scheduler(self, config: Mapping[str, Any], chain: Mapping[str, Any] | None) -> Any:
        """A scheduler of diffusers that walks the chain by itself; None where there is none.

        Args:
            config: of the base's scheduler.
            chain: ``ChainConfig`` with its times; None for a base model's own scheduler.
        """
        return None

    def set_steps(self, scheduler: Any, steps: int) -> None:
        """Let a scheduler choose its times, as the pipeline does."""
        scheduler.set_timesteps(steps)

    def pipeline(self, scheduler: Any) -> Any:
        """The model as a pipeline of diffusers, with this scheduler."""
        raise NotImplementedError(f"{type(self).__name__} has no pipeline in diffusers")

    def save(self, pipeline: Any, folder: Path, **options: Any) -> None:
        """Write what `pipeline` gave, as a folder that ``DiffusionPipeline`` loads.

        Args:
            pipeline: with the network as it is to be written.
            folder: an empty one.
            options: of ``save_pretrained``.
        """
        pipeline.save_pretrained(folder, **options)

    def save_lora(self, adapter: Any, folder: Path) -> None:
        """Write low-rank additions so that diffusers loads them onto the base, if it does.

        Args:
            adapter: what `mmd_ddm.models.lora.adapt` returned; None has none.
            folder: the file is called as diffusers wants it.
        """

    def conditions(self, seeds: Sequence[int]) -> Condition | None:
        """What the images of these seeds are drawn under: their classes by turns, or nothing."""
        if not self.classes:
            return None
        return Condition.of_labels(range(len(self.classes))).of_seeds(seeds).to(self.device)

    def encode(self, captions: Sequence[str]) -> Condition:
        """What images of these captions are drawn under; ``labels`` number the different ones.

        Raises:
            ValueError: the model knows none.
        """
        raise ValueError(f"{type(self).__name__} draws no captions")

    def under(self, labels: Tensor | None, captions: Sequence[str]) -> Condition | None:
        """What images like those of these labels, or captions, are drawn under; or nothing."""
        if self.of_captions:
            return self.encode(captions)
        return Condition.of_labels(labels) if self.classes and labels is not None else None

    def no_class(self, n: int) -> Condition:
        """What n images are drawn under that are of no class.

        Raises:
            ValueError: it has no such label.
        """
        if self.null_label is None:
            raise ValueError(
                "guidance takes a class-conditional model with a label that means no class; set "
                "condition.null_label, or guidance = 1"
            )
        return Condition.of_labels(torch.full((n,), self.null_label, device=self.device))

    def to_images(
        self, x_0: Float[Tensor, "n c h w"], *, keep: bool = False
    ) -> Float[Tensor, "n c h w"]:
        """Images in [-1, 1] from what the chain walks, differentiably: pixels are theirs.

        Args:
            x_0: at the end of the chain.
            keep: what a decoder computes on the way, for the backward pass, in which it otherwise
                computes it again.
        """
        return x_0

    def to_loss(
        self, x_0: Float[Tensor, "n c h w"], *, keep: bool = False
    ) -> Float[Tensor, "n c h w"]:
        """The images that a loss sees, by a smaller decoder where one is used: as `to_images`."""
        return self.to_images(x_0, keep=keep)

    def use_decoder(self, name: str) -> str:
        """Let a smaller decoder make the images of the loss.

        Args:
            name: its folder or hub id; ``tiny`` is the one made for the model's latents; empty for
                none.

        Returns:
            Its hash; empty for none.

        Raises:
            ValueError: a model without latents, or no decoder of these.
        """
        if name:
            raise ValueError(f"{self.source or 'this model'} draws pixels: leave out --decoder")
        return ""

    def hold(self, trained: str) -> None:
        """Hold the weights as is right where these are trained, see `mmd_ddm.models.lora`."""

    def check_decoder(self, x_0: Float[Tensor, "n c h w"]) -> None:
        """Of images that are not numbers: whether it is a decoder that made them of numbers.

        Args:
            x_0: that `to_images` was given.

        Raises:
            ValueError: it is.
        """

    def recompute_blocks(self, how: Callable[..., Any] | None = None) -> bool:
        """From now on, compute network and decoder block by block again in a backward pass.

        Args:
            how: calls a block with its inputs; by default, as torch's ``checkpoint`` does.

        Returns:
            Whether they can.
        """
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def sha256(self) -> str:
        """Of the model: weights as they are now, network, schedule, what it answers with."""
        config = getattr(self.network, "config", {})
        return key_of(
            type(self).__name__,
            type(self.network).__name__,
            {key: value for key, value in config.items() if not key.startswith("_")},
            weights_sha256(self.network),
            self.schedule.key,
            self.prediction,
            self.shape,
            *([self.null_label] if self.classes else []),
        )

    @property
    def fingerprint(self) -> str:
        """Of all that decides eps, to the last digit: the model, precision, layout in memory."""
        layout = [p.is_contiguous() for p in self.network.parameters()]
        return key_of(self.sha256, str(self.autocast), layout)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The autocast context that the network runs in."""
        on, kind = self.autocast is not None, self.device.type.replace("meta", "cpu")
        attention = _Float32Attention() if on and self.device.type == "cpu" else nullcontext()
        with torch.autocast(kind, dtype=self.autocast, enabled=on), attention:
            yield

    def use_fast_layout(self) -> None:
        """Keep the weights channels-last where that is faster: not in bfloat16 on CPUs."""
        if self.autocast is None or self.device.type != "cpu":
            self.network.to(memory_format=torch.channels_last)

    def coefficients(self, times: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of many times, [n, 1, 1, 1]; differentiable in them, from below."""
        alpha, sigma = self.schedule.coefficients(times)
        return alpha[:, None, None, None], sigma[:, None, None, None]


class _Float32Attention(TorchFunctionMode):
    """Attention without autocast: on CPUs bfloat16's backward pass takes five times as long."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **named)

        def widen(x: Any) -> Any:
            return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x

        with torch.autocast("cpu", enabled=False):
            return func(*map(widen, args), **{name: widen(x) for name, x in named.items()})
