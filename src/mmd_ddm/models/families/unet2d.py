r"""Pixel-space, unconditional `UNet2DModel`s of diffusers.

Whatever the network was trained to predict, it is seen as eps-prediction. With
x_t = alpha_t x_0 + sigma_t eps,

    sample:        eps = (x_t - alpha_t x_0) / sigma_t
    v_prediction:  eps = alpha_t v + sigma_t x_t        (Salimans & Ho, 2022)

Networks with a learned variance (twice the channels) keep their first half: no sampler here uses
the other, and stock pipelines refuse it. Weights are held in float32; x_t and eps are float32 as
well, also under autocast.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.find import read_index
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.fingerprint import key_of

__all__ = ["PREDICTIONS", "UNet2D", "without_variance"]

_LATENT = {"vae", "vqvae", "movq"}
PREDICTIONS = ("epsilon", "sample", "v_prediction")


class UNet2D(Denoiser):
    """A network of images and times.

    Args:
        network: called as ``network(x_t, t)``, answering with a tensor or an object whose
            ``.sample`` is one.
        schedule: the noise schedule of its training.
        prediction: one of `PREDICTIONS`.
        shape: of one image, (c, h, w).
        autocast: as in `Denoiser`.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        prediction: str = "epsilon",
        *,
        shape: tuple[int, int, int],
        autocast: torch.dtype | None = None,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(
                f"unknown prediction type {prediction!r}; choose one of {', '.join(PREDICTIONS)}"
            )
        super().__init__(network, schedule, shape, autocast)
        self.prediction = prediction

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "UNet2D":
        """Load a pipeline folder, or a hub id.

        Only safetensors are read from a folder that has them; nothing is unpickled.

        Raises:
            ValueError: the folder is no diffusion model this package can finetune.
            OSError: nothing there, or no network to fetch it with.
        """
        from diffusers import DDPMScheduler, UNet2DModel

        from mmd_ddm.models.shipped.unet_equal_heads import EqualHeadsUNet2DModel

        if Path(model).exists() and not _is_model(Path(model)):
            raise ValueError(
                f"{model} is not a diffusers model: expected unet/config.json beside "
                "scheduler/scheduler_config.json, or both configs in one folder"
            )
        _refuse_latent(model, read_index(model))
        config = _read_part(UNet2DModel.load_config, model, "unet")
        networks = {kind.__name__: kind for kind in (UNet2DModel, EqualHeadsUNet2DModel)}
        name = config.get("_class_name", "network of unknown class")
        _refuse_other(model, name if name not in networks else "", config)
        network, loading = _read_part(
            networks[name].from_pretrained,
            model,
            "unet",
            use_safetensors=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
        if loading["missing_keys"]:  # diffusers fills them with whatever memory holds, and warns
            raise ValueError(f"{model} lacks weights: {sorted(loading['missing_keys'])[0]} ...")
        scheduler = _read_part(DDPMScheduler.load_config, model, "scheduler")
        denoiser = cls.around(network, scheduler)
        denoiser.source = str(model)
        return denoiser

    @classmethod
    def from_pipeline(cls, pipeline: Any) -> "UNet2D":
        """Take a live diffusers pipeline, which stays as it is.

        Raises:
            ValueError: it is no diffusion model this package can finetune.
        """
        from diffusers import UNet2DModel

        name, parts = type(pipeline).__name__, pipeline.components
        _refuse_latent(name, parts)
        unet = parts.get("unet")
        other = "" if isinstance(unet, UNet2DModel) else type(unet).__name__
        _refuse_other(name, other, dict(getattr(unet, "config", {})))
        return cls.around(unet, dict(pipeline.scheduler.config))

    @classmethod
    def around(cls, network: Any, scheduler: Mapping[str, Any]) -> "UNet2D":
        """Take a copy of a `UNet2DModel`, with the schedule of a scheduler's config."""
        size = network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        denoiser = cls(
            # Weights mapped from a file lie unaligned, which changes the last digits of eps; a
            # copy answers as the network that was saved.
            without_variance(deepcopy(network).float().eval()),
            NoiseSchedule.from_config(scheduler),
            scheduler.get("prediction_type", "epsilon"),
            shape=(network.config.in_channels, height, width),
        )
        denoiser.scheduler_config = dict(scheduler)
        return denoiser

    @property
    def fingerprint(self) -> str:
        """With what the network predicts."""
        return key_of(super().fingerprint, self.prediction)

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, condition: None = None
    ) -> Float[Tensor, "n c h w"]:
        """Predict eps; see `Denoiser.forward`."""
        if isinstance(t, Tensor):
            times = t.to(x_t.device).expand(len(x_t))
        else:  # filled in on the device: a copy would wait for it
            times = torch.full((len(x_t),), t, device=x_t.device)
        with self.precision():
            output = self.network(x_t, times)
        output = getattr(output, "sample", output)[:, : x_t.shape[1]].to(x_t.dtype)
        if self.prediction == "epsilon":
            return output
        alpha_t, sigma_t = self.coefficients(times.to(x_t.dtype))
        if self.prediction == "sample":
            return (x_t - alpha_t * output) / sigma_t
        return alpha_t * output + sigma_t * x_t


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


def _refuse_latent(model: str | Path, parts: Mapping[str, Any]) -> None:
    latent = _LATENT & parts.keys()
    if latent:
        raise ValueError(
            f"{model} is a latent diffusion model ({', '.join(sorted(latent))} beside its "
            "unet); one that draws pixels is needed"
        )


def _refuse_other(model: str | Path, kind: str, config: Mapping[str, Any]) -> None:
    """A network of another kind, or of a configuration that is not for us."""
    if kind:
        raise ValueError(f"{model} holds a {kind}; an unconditional UNet2DModel is needed")
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise ValueError(f"{model} is class-conditional; an unconditional one is needed")
    if config.get("sample_size") is None:
        raise ValueError(f"{model} does not say its image size: set sample_size in its config")


def _is_model(root: Path) -> bool:
    """Whether a diffusers model lies there, in sub-folders or flat as the early ones."""
    return (root / "unet/config.json").is_file() or (root / "config.json").is_file()


def _read_part(read: Callable[..., Any], model: str | Path, part: str, **options: Any) -> Any:
    """One part of a model, from its sub-folder or from a flat repository.

    A folder that has the sub-folder is not searched further, so that its error is what is told.
    """
    root = Path(model)
    if (root / part).is_dir() or not root.exists():
        try:
            return read(str(model), subfolder=part, **options)
        except OSError:
            if root.exists():
                raise
    return read(str(model), **options)
