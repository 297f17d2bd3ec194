r"""Any pretrained diffusers network, seen as eps-prediction.

A denoiser answers one question, ``eps = denoiser(x_t, t)``, whatever its network was trained to
predict. With x_t = alpha_t x_0 + sigma_t eps,

    sample:        eps = (x_t - alpha_t x_0) / sigma_t
    v_prediction:  eps = alpha_t v + sigma_t x_t        (Salimans & Ho, 2022)

Networks with a learned variance (twice the channels) keep their first half: no sampler here uses
the other, and stock pipelines refuse it. Weights are held in float32; x_t and eps are float32 as
well, also under autocast.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.gamma import Gamma, read_gamma
from mmd_ddm.models.genie_head import GenieHead, read_head
from mmd_ddm.runs.fingerprint import weights_sha256

__all__ = ["PREDICTIONS", "Denoiser", "without_variance"]

_LATENT = {"vae", "vqvae", "movq"}
PREDICTIONS = ("epsilon", "sample", "v_prediction")


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


class Denoiser(nn.Module):
    """A network, the schedule it was trained with, and what it predicts.

    Args:
        network: called as ``network(x_t, t)``, answering with a tensor or an object whose
            ``.sample`` is one.
        schedule: the noise schedule of its training.
        prediction: one of `PREDICTIONS`.
        shape: of one image, (c, h, w).
        autocast: the type that the network computes in (``torch.bfloat16``); None for float32.

    Attributes:
        source: the folder or hub id it was loaded from; empty if it was not.
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
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(
                f"unknown prediction type {prediction!r}; choose one of {', '.join(PREDICTIONS)}"
            )
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.shape = shape
        self.autocast = autocast
        self.source = ""

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "Denoiser":
        """Load a diffusers pipeline folder, or a hub id, whose network is a `UNet2DModel`.

        Only safetensors are read from a folder that has them; nothing is unpickled.

        Raises:
            ValueError: the folder is no diffusion model this package can finetune.
            OSError: nothing there, or no network to fetch it with.
        """
        from diffusers import UNet2DModel

        from mmd_ddm.models.shipped.unet_equal_heads import EqualHeadsUNet2DModel

        if Path(model).exists() and not _is_model(Path(model)):
            raise ValueError(
                f"{model} is not a diffusers model: expected unet/config.json beside "
                "scheduler/scheduler_config.json, or both configs in one folder"
            )
        latent = _LATENT & _read_index(model).keys()
        if latent:
            raise ValueError(
                f"{model} is a latent diffusion model ({', '.join(sorted(latent))} beside its "
                "unet); one that draws pixels is needed"
            )
        config = _read_part(UNet2DModel.load_config, model, "unet")
        networks = {kind.__name__: kind for kind in (UNet2DModel, EqualHeadsUNet2DModel)}
        if config.get("_class_name") not in networks:
            raise ValueError(
                f"{model} holds a {config.get('_class_name', 'network of unknown class')}; "
                "an unconditional UNet2DModel is needed"
            )
        if config.get("class_embed_type") or config.get("num_class_embeds"):
            raise ValueError(f"{model} is class-conditional; an unconditional one is needed")
        scheduler = cls.read_scheduler_config(model)
        size = config.get("sample_size")
        if size is None:
            raise ValueError(f"{model} does not say its image size: set sample_size in its config")
        height, width = (size, size) if isinstance(size, int) else size
        network, loading = _read_part(
            networks[config["_class_name"]].from_pretrained,
            model,
            "unet",
            use_safetensors=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
        if loading["missing_keys"]:  # diffusers fills them with whatever memory holds, and warns
            raise ValueError(f"{model} lacks weights: {sorted(loading['missing_keys'])[0]} ...")
        denoiser = cls(
            # Weights mapped from a file lie unaligned, which changes the last digits of eps; a
            # copy answers as the network that was saved.
            without_variance(deepcopy(network).eval()),
            NoiseSchedule.from_config(scheduler),
            scheduler.get("prediction_type", "epsilon"),
            shape=(network.config.in_channels, height, width),
        )
        denoiser.source = str(model)
        return denoiser

    @staticmethod
    def read_scheduler_config(model: str | Path) -> dict[str, Any]:
        """``scheduler_config.json`` of a folder or hub id."""
        from diffusers import DDPMScheduler

        return dict(_read_part(DDPMScheduler.load_config, model, "scheduler"))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @cached_property
    def gamma(self) -> Gamma:
        """Second moments of the network as it was loaded: finetuning keeps them as constants.

        Raises:
            ValueError: the model's folder has none, or that of other weights.
        """
        return read_gamma(self.source, weights_sha256(self.network), len(self.schedule))

    @cached_property
    def head(self) -> GenieHead:
        """GENIE's head for the network as it was loaded: finetuning keeps it, frozen.

        Raises:
            ValueError: the model's folder has none, or that of other weights.
        """
        return read_head(self.source, weights_sha256(self.network)).to(self.device)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The autocast context that the network runs in."""
        on, kind = self.autocast is not None, self.device.type
        attention = _Float32Attention() if on and kind == "cpu" else nullcontext()
        with torch.autocast(kind, dtype=self.autocast, enabled=on), attention:
            yield

    def use_fast_layout(self) -> None:
        """Keep the weights channels-last where that is faster: not in bfloat16 on CPUs."""
        if self.autocast is None or self.device.type != "cpu":
            self.network.to(memory_format=torch.channels_last)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """A time without autocast, which has no forward derivatives."""
        kept, self.autocast = self.autocast, None
        try:
            yield
        finally:
            self.autocast = kept

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor
    ) -> Float[Tensor, "n c h w"]:
        """Predict eps.

        Args:
            x_t: noisy images.
            t: one time for all, or a tensor with one each; fractional times are kept fractional.
        """
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

    def derivative(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor, dx: Tensor, dt: float | Tensor
    ) -> Float[Tensor, "n c h w"]:
        """The derivative of eps at (x_t, t) along (dx, dt): exact, by a call with dual numbers.

        Args:
            x_t: noisy images.
            t: one time for all, or a tensor with one each.
            dx: the way of x_t, of its shape.
            dt: the way of t.
        """
        now, way = (torch.as_tensor(v, dtype=x_t.dtype, device=x_t.device) for v in (t, dt))
        # Fused attention has no forward derivative; and torch warns of itself when jvp is loaded.
        kernel = sdpa_kernel(SDPBackend.MATH)
        with self.exact(), kernel, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return torch.func.jvp(self, (x_t, now), (dx, way))[1]

    def with_features(
        self, x_t: Float[Tensor, "n c h w"], t: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Eps, and the last activations of a `UNet2DModel` before its output layers.

        Args:
            x_t: noisy images.
            t: one time for all, or a tensor with one each.
        """
        network: Any = self.network
        kept: list[Tensor] = []
        layer = network.conv_norm_out
        hook = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            return self(x_t, t), kept[0].to(x_t.dtype)
        finally:
            hook.remove()

    def with_slope(self, x_t: Float[Tensor, "n c h w"], t: float) -> tuple[Tensor, Tensor]:
        """Eps, and d eps / d rho along the flow as the head predicts it, in one call.

        Args:
            x_t: noisy images.
            t: one time for all.
        """
        eps, features = self.with_features(x_t, t)
        times = torch.full((len(x_t),), t, dtype=x_t.dtype, device=x_t.device)
        alpha_t, sigma_t = self.coefficients(times)
        return eps, self.head(x_t, times, eps, features, sigma_t / alpha_t)

    def encode(self, x_t: Float[Tensor, "n c h w"], t: float) -> list[Float[Tensor, "n _ _ _"]]:
        """Activations of a `UNet2DModel`'s contracting half, one a resolution, and its middle's.

        Args:
            x_t: noisy images.
            t: one time for all.
        """
        network: Any = self.network
        times = torch.full((len(x_t),), t, dtype=x_t.dtype, device=x_t.device)
        with self.precision():
            temb = network.time_embedding(network.time_proj(times).to(x_t.dtype))
            hidden = network.conv_in(2 * x_t - 1 if network.config.center_input_sample else x_t)
            levels = []
            for block in network.down_blocks:
                hidden, residuals = block(hidden_states=hidden, temb=temb)
                levels.append(residuals[0].to(x_t.dtype))
            levels.append(network.mid_block(hidden, temb).to(x_t.dtype))
        return levels

    def coefficients(self, times: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of many times, [n, 1, 1, 1]; differentiable in them, from below."""
        log_alpha_bar = self.schedule.alpha_bar.log().to(times)
        table = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar])  # begins with the data
        i = times.ceil().long()
        log_abar = torch.lerp(table[i], table[i + 1], times - (i - 1))[:, None, None, None]
        return (log_abar / 2).exp(), (-log_abar.expm1()).sqrt()


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


def _is_model(root: Path) -> bool:
    """Whether a diffusers model lies there, in sub-folders or flat as the early ones."""
    return (root / "unet/config.json").is_file() or (root / "config.json").is_file()


def _read_index(model: str | Path) -> dict[str, Any]:
    """``model_index.json``, which names every part; early models have none."""
    from diffusers import DiffusionPipeline

    try:
        return dict(DiffusionPipeline.load_config(str(model)))
    except OSError:
        return {}


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
