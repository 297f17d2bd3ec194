r"""Pixel-space `UNet2DModel`s of diffusers, unconditional or of classes.

Networks with a learned variance (twice the channels) keep their first half: no sampler here uses
the other, and stock pipelines refuse it. Weights are held in float32; x_t and eps are float32 as
well, also under autocast.
"""

from collections.abc import Mapping, Set
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from mmd_ddm.maths.schedules import Schedule
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.find import read_index, shorten
from mmd_ddm.models.parts import (
    check_room,
    config_of,
    lies_beside,
    load_network,
    network_part,
    read_scheduler_config,
    weights_in_files,
)
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.models.scheduler_config import SchedulerConfig

__all__ = ["CLASSES", "PREDICTIONS", "UNet2D", "ddim_scheduler", "without_variance"]

_DDIM_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
_LAYERS = 100  # of a block; networks have 1 to 4
CLASSES = "_mmd_ddm_classes"  # of a scheduler's config: names and the label that means none
_LATENT = {"vae", "vqvae", "movq"}
PREDICTIONS = ("epsilon", "sample", "v_prediction")


class UNet2D(Denoiser):
    """A network of images and times.

    Args:
        network: called as ``network(x_t, t)``, answering with a tensor or an object whose
            ``.sample`` is one.
        schedule: the noise schedule of its training.
        prediction: one of its `predictions`.
        shape: of one image, (c, h, w).
        autocast: as in `Denoiser`.

    Attributes:
        predictions: those that its kind of network makes.
        pipelines: the classes of diffusers that draw with one.
    """

    predictions: tuple[str, ...] = PREDICTIONS
    pipelines: tuple[str, ...] = ("DDPMPipeline", "DDIMPipeline", "ConsistencyModelPipeline")

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: str = "epsilon",
        *,
        shape: tuple[int, int, int],
        autocast: torch.dtype | None = None,
    ) -> None:
        if prediction not in self.predictions:
            names = ", ".join(self.predictions)
            raise ValueError(f"unknown prediction type {prediction!r}; choose one of {names}")
        super().__init__(network, schedule, shape, autocast)
        self.prediction = prediction

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "UNet2D":
        """Load a pipeline folder, a checkpoint of a training script, or a hub id.

        Nothing is unpickled that could be code.

        Raises:
            ValueError: the folder is no diffusion model this package can finetune.
            OSError: nothing there, or no network to fetch it with.
        """
        from diffusers import UNet2DModel

        from mmd_ddm.models.shipped.unet_equal_heads import EqualHeadsUNet2DModel

        part = network_part(model)
        _refuse_latent(model, read_index(model).keys() | lies_beside(model))
        networks = {kind.__name__: kind for kind in (UNet2DModel, EqualHeadsUNet2DModel)}
        config = UNet2DModel.load_config(str(model), subfolder=part or None)
        name = str(config.get("_class_name", "network of unknown class"))
        _refuse_other(model, name if name not in networks else "", config)
        _refuse_deep(model, config)
        check_room(
            lambda: networks[name].from_config(config),
            f"the config of {model}",
            weights_in_files(model, part),
        )
        network, loading = load_network(
            networks[name],
            model,
            part,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
        # diffusers fills the first with whatever memory holds, and drops the second.
        for keys, fault in (
            ("missing_keys", "lacks weights"),
            ("unexpected_keys", "has weights that its config has no place for"),
        ):
            if loading[keys]:
                raise ValueError(f"{model} {fault}: {sorted(loading[keys])[0]} ...")
        scheduler, around = read_scheduler_config(model)
        denoiser = cls.around(network, scheduler, str(model))
        denoiser.source = str(model)
        if part == "unet_ema":
            denoiser.notes.append("averaged weights, of unet_ema")
        if around is not None:
            denoiser.notes.append(f"scheduler of {around}")
        return denoiser

    @classmethod
    def from_pipeline(cls, pipeline: Any) -> "UNet2D":
        """Take a live diffusers pipeline, which stays as it is.

        Raises:
            ValueError: it is no diffusion model this package can finetune.
        """
        from diffusers import UNet2DModel

        name, parts = type(pipeline).__name__, pipeline.components
        _refuse_latent(name, parts.keys())
        unet = parts.get("unet")
        other = "" if isinstance(unet, UNet2DModel) else type(unet).__name__
        _refuse_other(name, other, dict(getattr(unet, "config", {})))
        return cls.around(unet, config_of(pipeline.scheduler), name)

    @classmethod
    def around(cls, network: Any, scheduler: Mapping[str, Any], name: str) -> "UNet2D":
        """Take a copy of a `UNet2DModel`, with what a scheduler's config says.

        Args:
            network: called once, without computing anything, on what it says is its shape.
            scheduler: the config.
            name: of the model, for errors.
        """
        understood = SchedulerConfig.read(scheduler)
        shape = (network.config.in_channels, *_size(network.config.sample_size, name))
        # Weights mapped from a file lie unaligned, which changes the last digits of eps; a
        # copy answers as the network that was saved.
        copy, classes = without_variance(deepcopy(network).float().eval()), _classes(network)
        _call_once(copy, shape, name, classes)
        denoiser = cls(copy, understood.schedule, understood.prediction, shape=shape)
        denoiser.scheduler_config, denoiser.clip = understood.content, understood.clip
        told = scheduler.get(CLASSES) or {}  # which a config of diffusers has no place for
        denoiser.classes = tuple(told.get("names") or map(str, range(classes)))
        denoiser.null_label = told.get("null")
        if understood.unused:
            denoiser.notes.append(
                f"not used of its scheduler config: {', '.join(understood.unused)}"
            )
        return denoiser

    def stock_scheduler(self, config: Mapping[str, Any], chain: Mapping[str, Any] | None) -> Any:
        """See `Denoiser`: DDIM steps by T // K whatever its list says, from any lesser offset.

        Consistency chains re-noise as `LCMScheduler` does, whose c_skip is 0 at so large a scaling
        of the times, on trailing times where it has all T to choose from.
        """
        from diffusers import DDIMScheduler, LCMScheduler

        if chain is None:
            return DDIMScheduler.from_config(dict(config))
        betas = config.get("beta_schedule", "linear")
        if chain["sampler"] == "consistency" and betas in _DDIM_BETAS:
            T = len(self.schedule)
            held = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": betas, **config}
            return LCMScheduler.from_config(
                held,
                num_train_timesteps=T,
                prediction_type=self.prediction,
                original_inference_steps=T,
                timestep_scaling=1e6,
                clip_sample=chain["clip"],
                clip_sample_range=1.0,
                set_alpha_to_one=True,
                thresholding=False,
            )
        if chain["sampler"] != "ddim" or chain["eta"] != 0 or betas not in _DDIM_BETAS:
            return None
        times = list(chain["times"])
        stride, offset = len(self.schedule) // len(times), times[-1]
        if not (offset < stride and float(offset).is_integer()):
            return None
        if times != [offset + i * stride for i in reversed(range(len(times)))]:
            return None
        return ddim_scheduler(config, clip=chain["clip"], spacing="leading", offset=int(offset))

    def pipeline(self, scheduler: Any) -> Any:
        """See `Denoiser`; `DDIMPipeline` would make its own scheduler of any other."""
        from diffusers import ConsistencyModelPipeline, DDIMPipeline, DDIMScheduler, DDPMPipeline

        if self.classes:  # the one stock pipeline that hands labels over, whatever the scheduler
            if self.shape[1] != self.shape[2]:
                raise ValueError("diffusers draws images with classes as squares; these are none")
            return ConsistencyModelPipeline(self.network, scheduler)
        made = DDIMPipeline if isinstance(scheduler, DDIMScheduler) else DDPMPipeline
        return made(self.network, scheduler)

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, condition: Condition | None = None
    ) -> Float[Tensor, "n c h w"]:
        """See `Denoiser.forward`."""
        seen = self.seen(x_t, t)
        with self.precision():
            output = self.network(*seen, **(condition.tensors if condition else {}))
        answer: Tensor = getattr(output, "sample", output)[:, : x_t.shape[1]].to(x_t.dtype)
        return answer


def ddim_scheduler(config: Mapping[str, Any], *, clip: bool, spacing: str, offset: int) -> Any:
    """Diffusers' DDIM of this training, whose last step is into the data.

    Args:
        config: of the base's scheduler.
        clip: whether x_0 is clamped to [-1, 1].
        spacing: diffusers' name of how its times lie.
        offset: of the last of them, where the spacing has one.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(
        dict(config),
        clip_sample=clip,
        clip_sample_range=1.0,
        timestep_spacing=spacing,
        steps_offset=offset,
        set_alpha_to_one=True,
        thresholding=False,
    )


def without_variance(network: Any) -> Any:
    """The same `UNet2DModel` without the channels in which it answers with a variance."""
    channels = network.config.in_channels
    if network.config.out_channels == 2 * channels:
        last = network.conv_out
        network.conv_out = nn.Conv2d(last.in_channels, channels, 3, padding=1)
        network.conv_out.weight.data = last.weight.data[:channels].clone()
        network.conv_out.bias.data = last.bias.data[:channels].clone()
        network.register_to_config(out_channels=channels)
    return network


def _refuse_latent(model: str | Path, parts: Set[str]) -> None:
    latent = _LATENT & parts
    if latent:
        raise ValueError(
            f"{model} is a latent diffusion model ({', '.join(sorted(latent))} beside its "
            "unet); one that draws pixels is needed"
        )


def _refuse_other(model: str | Path, kind: str, config: Mapping[str, Any]) -> None:
    """A network of another kind, or of a configuration that is not for us."""
    if kind:
        raise ValueError(f"{model} holds a {kind}; a UNet2DModel is needed")
    if config.get("class_embed_type"):
        raise ValueError(
            f"{model} is told classes by class_embed_type {config['class_embed_type']}; a model "
            "with num_class_embeds is needed"
        )


def _classes(network: Any) -> int:
    """How many labels a network has an embedding for."""
    return int(getattr(network.config, "num_class_embeds", None) or 0)


def _refuse_deep(model: str | Path, config: Mapping[str, Any]) -> None:
    """Layers are made one by one, so that not even their number can be asked for first."""
    layers = config.get("layers_per_block", 1)
    if isinstance(layers, int) and layers > _LAYERS:
        raise ValueError(f"layers_per_block of {model} is {layers}: more than {_LAYERS:,}")


def _size(sample_size: Any, model: str) -> tuple[int, int]:
    """Height and width."""
    if sample_size is None:
        raise ValueError(f"{model} does not say its image size: set sample_size in its config")
    size = sample_size if isinstance(sample_size, list | tuple) else (sample_size, sample_size)
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError(
            f"sample_size of {model} is {sample_size!r}: a number of pixels, or [height, width], "
            "is needed in its config"
        )
    return size[0], size[1]


def _call_once(network: nn.Module, shape: tuple[int, int, int], model: str, classes: int) -> None:
    """Whether the network answers an image of its shape with one, asked with tensors of no values.

    Raises:
        ValueError: it does not.
    """
    tensors = (*network.named_parameters(), *network.named_buffers())
    size = "x".join(map(str, shape))
    try:
        answer = functional_call(
            network,
            {name: tensor.to("meta") for name, tensor in tensors},
            (torch.empty(1, *shape, device="meta"), torch.zeros(1, device="meta")),
            {"class_labels": torch.zeros(1, dtype=torch.long, device="meta")} if classes else {},
        )
    except Exception as error:  # a config can go wrong in a dozen ways
        raise ValueError(
            f"the network of {model} cannot be called with an image of {size}, which its config "
            f"says it is for: {shorten(error)}"
        ) from error
    if answer.sample.shape[1:] != shape:
        raise ValueError(
            f"the network of {model} answers an image of {size} with one of "
            f"{'x'.join(map(str, answer.sample.shape[1:]))}: no denoiser"
        )
