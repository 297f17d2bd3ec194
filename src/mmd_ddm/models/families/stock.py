"""Pipelines of diffusers whose networks are told more than x_t and t, or which draw latents.

One recorded call (`mmd_ddm.models.recorded`) says how such a pipeline calls its network, with what
conditions, and what it tells it where it is guided; its scheduler's config says the process, and
its autoencoder's how latents become images. So there is no code of a family here: those of
`Stock.pipelines` are the ones that the tests compare with diffusers.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmd_ddm.maths.continuous import dynamic_shift
from mmd_ddm.models.codec import Codec
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.families.flow import flow_scheduler
from mmd_ddm.models.families.unet2d import CLASSES, ddim_scheduler
from mmd_ddm.models.lora import lora_layers
from mmd_ddm.models.parts import config_of, name_part, quiet
from mmd_ddm.models.pipelines import copy_pipeline, load_pipeline, load_tiny_decoder, with_parts
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.models.recorded import Call, arguments_of, network_of, record
from mmd_ddm.models.scheduler_config import SchedulerConfig
from mmd_ddm.runs.fingerprint import key_of, settings_of, weights_sha256

__all__ = ["Stock"]

_AUTOENCODERS = ("vae", "vqvae")
_PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
_SHARD = "5GB"  # of a file of weights
_AT_ONCE = 16  # prompts through the text encoders


class Stock(Denoiser):
    """The network of a pipeline, and its frozen autoencoder.

    Args:
        pipeline: of diffusers, whose autoencoder is taken as it is.
        network: in place of the pipeline's own, which is taken as it is as well.

    Attributes:
        pipelines: the classes of diffusers that are read so.
        part: the pipeline's name for the network.
        codec: from latents to images.
        small: another that stands for it in a loss; None for none.
        latent_shape: of what the chain walks.

    Raises:
        ValueError: a pipeline without network or autoencoder, or of another process.
    """

    holds_midpoints = False
    pipelines = (
        "LDMPipeline", "DiTPipeline", "StableDiffusionPipeline", "LatentConsistencyModelPipeline",
        "StableDiffusionXLPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline",
        "StableDiffusion3Pipeline", "FluxPipeline", "SanaPipeline",
    )  # fmt: skip

    def __init__(self, pipeline: Any, network: Any = None) -> None:
        name = type(pipeline).__name__
        part = network_of(pipeline)
        kind = next((one for one in _AUTOENCODERS if pipeline.components.get(one)), None)
        if kind is None:
            raise ValueError(f"{name} has no autoencoder ({' or '.join(_AUTOENCODERS)})")
        codec = Codec(getattr(pipeline, kind))
        asked = _asked(pipeline, codec)
        call = record(pipeline, asked)
        guided = call if call.rows > 1 else None
        asked |= {"guidance_scale": 1.0} if guided else {}
        own = record(pipeline, asked) if guided else call
        understood = SchedulerConfig.read(_of_one_size(config_of(pipeline.scheduler), own.x))
        if understood.prediction not in _PREDICTIONS:
            raise ValueError(
                f"{name} is not drawn here with a {type(pipeline.scheduler).__name__}"
            )
        network = (network or getattr(pipeline, part)).eval()
        if network.dtype == torch.float16:
            with quiet():
                network.to(torch.bfloat16)
        shape = _latent_shape(own.x, asked, codec)
        super().__init__(network, understood.schedule, codec.images_of(shape))
        self.codec, self.latent_shape, self._asked = codec, shape, asked
        self.small: Codec | None = None
        self.part, self._codec_part, self._call = part, kind, own
        self.prediction, self.clip = understood.prediction, understood.clip
        self.scheduler_config = understood.content
        self._shift = getattr(understood.schedule, "shift", None) if own.gives_levels else None
        self._plain = _told(own.tensors) if own.tensors else None
        self.of_captions = "prompt" in asked
        self._null = _null_of(guided, own) if guided else self._plain
        self._kind, self._live = type(pipeline), None
        self.guides = guided is not None
        # The pipeline of consistency models asks its scheduler for times in words of its own.
        self._own_times = "original_inference_steps" in arguments_of(pipeline)
        if "class_labels" in own.tensors:
            self._take_classes(pipeline)

    @classmethod
    def from_pretrained(cls, model: str | Path) -> "Stock":
        """Load a pipeline's folder, or a hub id; its text encoders are dropped again.

        Raises:
            ValueError: it is no pipeline that this package can finetune.
            OSError: nothing there, or no network to fetch it with.
        """
        denoiser = cls(load_pipeline(model))
        denoiser.source = str(model)
        return denoiser

    @classmethod
    def from_pipeline(cls, pipeline: Any) -> "Stock":
        """Take a live pipeline, which stays as it is."""
        denoiser = cls(pipeline, deepcopy(getattr(pipeline, network_of(pipeline))))
        denoiser._live = pipeline
        return denoiser

    def forward(
        self,
        x_t: Float[Tensor, "n c h w"],
        t: float | Tensor,
        condition: Condition | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """See `Denoiser.forward`."""
        _, told = self.seen(x_t, t)
        packed = self._call.x.dim() == 3
        sample, times = _pack(x_t) if packed else x_t, self._call.factor * told.float()
        kind = next(self.network.parameters()).dtype  # of weights that are not adapted
        named: dict[str, Any] = {self._call.sample: sample.to(kind), "timestep": times}
        named |= {name: tensor.to(x_t.device) for name, tensor in self._call.shared.items()}
        for name, tensor in (condition.tensors if condition else {}).items():
            if tensor.is_floating_point():
                tensor = tensor.to(kind)
            outer, _, inner = name.partition(".")
            if inner:
                named.setdefault(outer, {})[inner] = tensor
            else:
                named[outer] = tensor
        with self.precision():
            output = self.network(**named, return_dict=False)[0]
        answer: Tensor = _unpack(output, x_t.shape[2:]) if packed else output[:, : x_t.shape[1]]
        return answer.to(x_t.dtype)

    def to_images(
        self, x_0: Float[Tensor, "n d hz wz"], *, keep: bool = False
    ) -> Float[Tensor, "n c h w"]:
        """See `Denoiser`."""
        images: Tensor = self.codec(x_0, keep)
        return images

    def to_loss(
        self, x_0: Float[Tensor, "n d hz wz"], *, keep: bool = False
    ) -> Float[Tensor, "n c h w"]:
        """See `Denoiser`."""
        images: Tensor = (self.small or self.codec)(x_0, keep)
        return images

    def use_decoder(self, name: str) -> str:
        """See `Denoiser`."""
        if not name:
            return ""
        small = Codec(load_tiny_decoder(name, self._kind.__name__))
        found = weights_sha256(small)
        channels = small.autoencoder.config.latent_channels
        if (channels, small.images_of(self.latent_shape)) != (self.latent_shape[0], self.shape):
            raise ValueError(
                f"the decoder {name} is for latents of {channels} channels, and makes images of "
                f"{small.images_of(self.latent_shape)}; those of {self.source} are of "
                f"{self.latent_shape[0]} channels and {self.shape}"
            )
        self.small = small.to(self.device)
        return found

    def hold(self, trained: str) -> None:
        """See `Denoiser`: in half precision what is frozen and computes in it, else in float32."""
        kind = self.autocast if trained == "lora" else torch.float32
        if kind is not None:
            with quiet():
                self.network.to(kind)

    def check_decoder(self, x_0: Float[Tensor, "n d hz wz"]) -> None:
        """See `Denoiser`."""
        if bool(x_0.isfinite().all()):
            raise ValueError(
                f"the {type(self.codec.autoencoder).__name__} of {self.source or 'this pipeline'} "
                "decodes finite latents to values that are not numbers in "
                f"{str(self.codec.dtype).removeprefix('torch.')}: take its weights in float32 or "
                "bfloat16"
            )

    def recompute_blocks(self, how: Callable[..., Any] | None = None) -> bool:
        """See `Denoiser`."""
        parts: tuple[Any, ...] = (self.network, (self.small or self.codec).autoencoder)
        able = [one for one in parts if getattr(one, "_supports_gradient_checkpointing", False)]
        for part in able:
            part.enable_gradient_checkpointing(how)
        self.blocks_again = bool(able)
        return self.blocks_again

    def encode(self, prompts: Sequence[str]) -> Condition:
        """What the network is told of these prompts, by the pipeline's own text encoders.

        Raises:
            ValueError: a model that takes none.
        """
        if self.classes or self._plain is None:
            raise ValueError(f"{self.source or 'this model'} takes no prompts")
        number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        different, parts = [*number], []
        with quiet():
            pipeline = self._pipeline()
            if self._live is None:  # which stays where it is
                pipeline.to(self.device)
            for i in range(0, len(different), _AT_ONCE):
                asked = self._asked | {"prompt": different[i : i + _AT_ONCE]}
                parts.append(record(pipeline, asked).tensors)
        tensors = {name: torch.cat([one[name].cpu() for one in parts]) for name in parts[0]}
        every = Condition(tensors, torch.arange(len(different)))
        return every[torch.tensor([number[prompt] for prompt in prompts])]

    def conditions(self, seeds: Sequence[int]) -> Condition | None:
        """See `Denoiser`; with prompts, the empty one."""
        if self.classes or self._plain is None:
            return super().conditions(seeds)
        return self._plain.of_seeds([0] * len(seeds)).to(self.device)

    def no_class(self, n: int) -> Condition:
        """See `Denoiser`; with prompts, what the pipeline tells its network of none."""
        if self.classes or self._null is None:
            return super().no_class(n)
        return self._null.of_seeds([0] * n).to(self.device)

    @property
    def sha256(self) -> str:
        """See `Denoiser`; and of what makes latents images, and of what no prompt is."""
        about = settings_of(self.codec), self._plain and settings_of(self._plain)
        return key_of(super().sha256, weights_sha256(self.codec), about)

    def stock_scheduler(self, config: Mapping[str, Any], chain: Mapping[str, Any] | None) -> Any:
        """See `Denoiser`: DDIM on trailing times, flows on those of a shift."""
        import diffusers

        if chain is None:
            kind = getattr(diffusers, str(config.get("_class_name")), diffusers.DDIMScheduler)
            return kind.from_config(dict(config))
        if self.prediction == "flow_prediction":
            return flow_scheduler(len(self.schedule), chain, self._shift)
        if chain["sampler"] != "ddim" or chain["eta"] != 0 or self._own_times:
            return None
        # Offsets and clamping are what constructors of pipelines write over.
        return ddim_scheduler(config, clip=chain["clip"], spacing="trailing", offset=1)

    def set_steps(self, scheduler: Any, steps: int) -> None:
        """See `Denoiser`."""
        if self._call.gives_levels:
            scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
        else:
            scheduler.set_timesteps(steps)

    def pipeline(self, scheduler: Any) -> Any:
        """See `Denoiser`."""
        with quiet():
            return with_parts(self._pipeline(), {"scheduler": scheduler})

    def save(self, pipeline: Any, folder: Path, **options: Any) -> None:
        """See `Denoiser`: the base's folder as it is, but for network and scheduler.

        Pipelines lose what they do not know when they are saved (names of classes, parts that are
        none), and text encoders would be written anew.
        """
        if self._live is not None:
            pipeline.save_pretrained(folder, **options)
            return
        copy_pipeline(self.source, folder, self.part, "scheduler")
        large = {**options, "max_shard_size": _SHARD}
        getattr(pipeline, self.part).save_pretrained(folder / self.part, **large)
        pipeline.scheduler.save_pretrained(folder / "scheduler")
        name_part(folder, "scheduler", "diffusers", type(pipeline.scheduler).__name__)

    def save_lora(self, adapter: Any, folder: Path) -> None:
        """See `Denoiser`: for ``load_lora_weights``, where the pipeline has it."""
        if adapter is not None and hasattr(self._kind, "save_lora_weights"):
            layers = {f"{self.part}_lora_layers": lora_layers(adapter)}
            self._kind.save_lora_weights(folder, **layers)

    def _pipeline(self) -> Any:
        """The whole pipeline, with the parts that are held here."""
        held = {self.part: self.network, self._codec_part: self.codec.autoencoder}
        if self._live is not None:
            return with_parts(self._live, held)
        return load_pipeline(self.source, **held)

    def _take_classes(self, pipeline: Any) -> None:
        config: Any = self.network.config
        labels = config.get("num_embeds_ada_norm") or config.get("num_class_embeds") or 0
        told = self.scheduler_config.get(CLASSES) or {}
        known = getattr(pipeline, "labels", None) or {}  # of DiT: names to numbers
        numbers = {number: name for name, number in known.items()}
        named = [numbers.get(i, str(i)) for i in range(labels)]
        self.classes = tuple(told.get("names") or named)
        self.null_label = told.get("null", labels)


def _asked(pipeline: Any, codec: Codec) -> dict[str, Any]:
    """What the pipeline is asked for in the call that is recorded: one image of no prompt."""
    known = arguments_of(pipeline)
    if "prompt" in known:
        config = getattr(pipeline, network_of(pipeline)).config
        size = config.get("sample_size") or pipeline.default_sample_size
        _, height, width = codec.images_of((1, *((size, size) if isinstance(size, int) else size)))
        return {"prompt": [""], "height": height, "width": width}
    return {"class_labels": [0]} if "class_labels" in known else {"batch_size": 1}


def _latent_shape(x: Tensor, asked: Mapping[str, Any], codec: Codec) -> tuple[int, int, int]:
    """Of what the chain walks, which a network may be handed in patches of 2 x 2."""
    if x.dim() == 4:
        return x.shape[1], x.shape[2], x.shape[3]
    _, height, width = codec.images_of((1, 2, 2))  # of one patch
    return x.shape[2] // 4, 2 * asked["height"] // height, 2 * asked["width"] // width


def _pack(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n patches values"]:
    return nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def _unpack(x: Float[Tensor, "n patches values"], size: Sequence[int]) -> Tensor:
    patches = x.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))
    return nn.functional.pixel_shuffle(patches, 2)


def _of_one_size(config: dict[str, Any], x: Tensor) -> dict[str, Any]:
    """The config of a scheduler that shifts by the number of patches, for this many."""
    if not config.get("use_dynamic_shifting"):
        return config
    least = int(config.get("base_image_seq_len", 256)), float(config.get("base_shift", 0.5))
    most = int(config.get("max_image_seq_len", 4096)), float(config.get("max_shift", 1.15))
    shift = dynamic_shift(x.shape[1], least=least, most=most)
    return {**config, "use_dynamic_shifting": False, "shift": shift}


def _null_of(guided: Call, own: Call) -> Condition:
    """What the network is told in the half of a guided call that is not the image's own."""
    halves = [{name: tensor[i : i + 1] for name, tensor in guided.tensors.items()} for i in (0, 1)]
    other = [
        half for half in halves
        if any(not (t.is_meta or torch.equal(t, own.tensors[name])) for name, t in half.items())
    ]  # fmt: skip
    return _told((other or halves)[0])


def _told(tensors: Mapping[str, Tensor]) -> Condition:
    """What one image is told, of which there is no other."""
    return Condition(tensors, torch.zeros(1, dtype=torch.long))
