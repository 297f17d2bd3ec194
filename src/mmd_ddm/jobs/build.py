"""The composition root: settings become objects here, and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from diffusers.utils.logging import disable_progress_bar
from torch import nn

from mmd_ddm.config import ChainConfig, FinetuneConfig, NetworkConfig
from mmd_ddm.data.images import ImageSet, Split, load_images
from mmd_ddm.data.split import split_images
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import check_start, check_times, select_times
from mmd_ddm.models.find import find_model, shorten, typed
from mmd_ddm.models.load import load_denoiser
from mmd_ddm.models.parts import check_room
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.settings import from_mapping

__all__ = [
    "Model",
    "build_data",
    "build_device",
    "build_network",
    "build_sampler",
    "check_channels",
    "check_classes",
    "load_model",
    "name_null_label",
    "precision_dtype",
    "resolve_chain",
    "resolve_chains",
    "resolve_or_trailing",
    "say_notes",
]

_CLIPPING = ("ddim", "ddpm-small", "ddpm-large", "heun")  # those that read clip_sample there
_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        name: as the person named it.
        denoiser: on its device.
        scheduler_config: of the diffusers folder it came from.
        chain: what it was finetuned for; None for a base model.
        budgets: the chains of all the step counts that it was finetuned for, fewest first, the
            chain among them; empty of a base model, and where it is the only one.
    """

    name: str
    denoiser: Denoiser
    scheduler_config: dict[str, Any]
    chain: ChainConfig | None
    budgets: tuple[ChainConfig, ...] = ()


def build_device(name: torch.device | str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU if there is one.

    Raises:
        ValueError: a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} is not available: {str(error).splitlines()[0]}"
        ) from error
    return device


def precision_dtype(name: str) -> torch.dtype | None:
    """The autocast type of a precision setting.

    Raises:
        ValueError: an unknown precision.
    """
    if name not in _PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; choose one of {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]


def load_model(
    model: str | Any, device: torch.device | str = "auto", precision: str = "float32"
) -> Model:
    """A model of any family.

    Args:
        model: as a person names it: a bundled one, a run, a diffusers folder, a hub id; or a live
            diffusers pipeline, which stays as it is. What is loaded already is given back.
        device: where it computes; ``auto`` takes a GPU if there is one.
        precision: float32, or bfloat16: the network under autocast, weights in float32.

    Raises:
        ValueError: nothing of that name, or no diffusion model.
    """
    if isinstance(model, Model):
        return model
    place, autocast = build_device(device), precision_dtype(precision)
    named = isinstance(model, str)
    name = model if named else str(getattr(model, "name_or_path", None) or "pipeline")
    source = find_model(name) if named else model
    disable_progress_bar()
    try:
        denoiser = load_denoiser(source)
        scheduler_config = dict(denoiser.scheduler_config)
        own, budgets = scheduler_config.pop("_mmd_ddm", None), []
        if isinstance(own, dict) and "budgets" in own:
            budgets = [from_mapping(ChainConfig, one) for one in own["budgets"]]
            own = {key: value for key, value in own.items() if key != "budgets"}
        chain = from_mapping(ChainConfig, own) if own else None
    except Exception as error:  # a damaged model raises a dozen kinds
        if isinstance(error, ValueError) and str(source) in str(error):  # says what and where
            raise ValueError(str(error).replace(str(source), typed(source))) from error
        raise ValueError(f"cannot load {name}: {shorten(error)}") from error
    denoiser.autocast = autocast
    check_channels(denoiser.shape[0], f"{name} draws")
    for key, weights in denoiser.network.named_parameters():
        if not bool(weights.isfinite().all()):
            raise ValueError(
                f"{name} has weights that are not numbers, in {key}: take an earlier checkpoint"
            )
    return Model(name, denoiser.to(place), scheduler_config, chain, tuple(budgets))


def check_channels(channels: int, what: str) -> None:
    """Images are grey or in colour.

    Args:
        channels: of each.
        what: has them, in words that "images" goes with.

    Raises:
        ValueError: any other number.
    """
    if channels not in (1, 3):
        raise ValueError(
            f"{what} images of {channels} channels; grey or colour images, of 1 or 3, are needed"
        )


def resolve_chain(
    chain: ChainConfig, denoiser: Denoiser, *, truncated: bool = False
) -> ChainConfig:
    """The same chain with all filled in that the model decides.

    That is its times, their number, and whether it clips: if nothing is said, where diffusers'
    scheduler of that sampler does, with the config of this model. Without betas, ``midpoint``
    times never begin in noise, and pipelines of latents write over them; ``trailing`` ones stand
    for them, which diffusers can hold.

    Args:
        chain: by times or spacing.
        denoiser: that walks it.
        truncated: it begins from noised images, so that it may start anywhere.

    Raises:
        ValueError: times or steps that cannot be walked, or begin too far from noise.
    """
    schedule = denoiser.schedule
    held = isinstance(schedule, NoiseSchedule) and denoiser.holds_midpoints
    if chain.spacing == "midpoint" and not held:
        chain = replace(chain, spacing="trailing")
    if chain.clip is None:
        chain = replace(chain, clip=denoiser.clip and chain.sampler in _CLIPPING)
    if not chain.times:
        times = select_times(
            chain.spacing, chain.steps, len(schedule), schedule, truncated=truncated
        )
        return replace(chain, times=times)
    times = check_times(chain.times, schedule)
    if not truncated:
        check_start(times, schedule)
    return replace(chain, times=times, steps=len(times))


def resolve_chains(
    config: FinetuneConfig, denoiser: Denoiser
) -> tuple[ChainConfig, tuple[ChainConfig, ...]]:
    """The chain of a finetuning, and those of its budgets, fewest steps first, if it has several.

    Each budget has times of its own. Where so few of its spacing would begin too far from noise,
    they are ``trailing``.

    Args:
        config: the settings.
        denoiser: that walks them.

    Raises:
        ValueError: whatever `resolve_chain` refuses.
    """
    own = replace(config.chain, guidance=config.trained_guidance)
    if not config.budgets:
        return resolve_chain(own, denoiser), ()
    found = {}
    for steps in config.budgets:
        found[steps] = resolve_or_trailing(replace(own, steps=steps), denoiser)
    return found[config.chain.steps], tuple(found.values())


def resolve_or_trailing(chain: ChainConfig, denoiser: Denoiser) -> ChainConfig:
    """`resolve_chain`, of ``trailing`` times where its spacing would begin too far from noise."""
    times = resolve_chain(chain, denoiser, truncated=True).times
    try:
        check_start(times, denoiser.schedule)
    except ValueError:
        chain = replace(chain, spacing="trailing")
    return resolve_chain(chain, denoiser)


def build_sampler(
    chain: ChainConfig, denoiser: Denoiser, *, recompute: bool = False, truncated: bool = False
) -> Sampler:
    """The chain as a sampler of this denoiser; ``truncated`` is that of `resolve_chain`."""
    resolved = resolve_chain(chain, denoiser, truncated=truncated)
    sampler = make_sampler(
        resolved.sampler,
        denoiser,
        resolved.times,
        eta=resolved.eta,
        order=resolved.order,
        clip=bool(resolved.clip),
        recompute=recompute,
    )
    if resolved.guidance != 1:
        denoiser.no_class(1)  # or say that it has none
        sampler.guidance = resolved.guidance
    return sampler


def build_data(
    config: FinetuneConfig,
    shape: tuple[int, int, int],
    *,
    labels: bool = False,
    captions: bool = False,
    progress: Progress = silent,
) -> Split:
    """The images to match, those that only evaluation sees, those to select by: `split_images`.

    Args:
        config: names them.
        shape: (c, h, w) of each.
        labels: read which class each is of, as a class-conditional model needs.
        captions: likewise.
        progress: told how far decoding is.

    Raises:
        ValueError: whatever `load_images` or `split_images` refuses.
    """
    load = partial(load_images, labels=labels, captions=captions, progress=progress)
    images, heldout = load(config.data, shape, config), None
    if config.heldout:
        heldout = load(config.heldout, shape, config)
    return split_images(images, heldout, seed=config.seed, select=config.select.every > 0)


def name_null_label(denoiser: Denoiser, label: int) -> None:
    """Tell a class-conditional model which of its labels means no class.

    Args:
        denoiser: changed in place.
        label: that one; -1 is what the model says.

    Raises:
        ValueError: a label that the model does not have.
    """
    if label < 0 or label == denoiser.null_label:
        return
    known = len(denoiser.classes)
    if label >= known:
        raise ValueError(f"condition.null_label is {label}; the model has labels 0 to {known - 1}")
    denoiser.null_label = label
    if label == known - 1:
        denoiser.classes = denoiser.classes[:-1]


def check_classes(models: Sequence[Model], *sets: ImageSet) -> None:
    """Whether models have the classes or captions of these images that they draw under.

    Args:
        models: of any kind.
        sets: the images.

    Raises:
        ValueError: images without labels or captions, or of a class that the model does not have.
    """
    for model, images in product((one for one in models if one.denoiser.of_captions), sets):
        if not images.captions:
            raise ValueError(
                f"{images.source} has no captions, and {model.name} draws under them: read it "
                "with captions=True"
            )
    for model, images in product((one for one in models if one.denoiser.classes), sets):
        if images.labels is None:
            raise ValueError(
                f"{images.source} has no labels, and {model.name} is class-conditional: read it "
                "with labels=True"
            )
        most, known = int(images.labels.max()), len(model.denoiser.classes)
        if most >= known:
            raise ValueError(
                f"{images.source} has class {most} ({images.classes[most]}), and {model.name} has "
                f"{known} classes, 0 to {known - 1}"
            )
        for label in images.labels.unique().tolist():
            ours, theirs = model.denoiser.classes[label], images.classes[label]
            if ours != theirs and not (ours.isdecimal() or theirs.isdecimal()):
                raise ValueError(
                    f"class {label} of {images.source} is {theirs}, that of {model.name} {ours}: "
                    "give the folders of classes that the model was made of"
                )


def build_network(config: NetworkConfig, shape: Sequence[int], classes: int = 0) -> nn.Module:
    """A fresh UNet2DModel for images of this shape (c, h, w), and of so many classes.

    Raises:
        ValueError: channels and attention of different length, or sizes that do not fit.
    """
    from diffusers import UNet2DModel

    levels = len(config.channels)
    if len(config.attention) != levels:
        raise ValueError(
            f"network.attention has {len(config.attention)} entries, network.channels {levels}"
        )
    if shape[1] % 2 ** (levels - 1) or shape[2] % 2 ** (levels - 1):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} cannot be halved {levels - 1} times: use fewer "
            "network.channels, or --resize"
        )
    for width, attends in zip(config.channels, [*config.attention[:-1], True], strict=True):
        if width % config.norm_num_groups:
            raise ValueError(
                f"network.norm_num_groups = {config.norm_num_groups} does not divide {width} of "
                "network.channels"
            )
        if attends and width < config.attention_head_dim:
            raise ValueError(
                f"network.attention_head_dim = {config.attention_head_dim} is more than the "
                f"{width} of network.channels it attends over"
            )
    make = partial(
        UNet2DModel,
        sample_size=shape[1] if shape[1] == shape[2] else (shape[1], shape[2]),
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=config.layers_per_block,
        block_out_channels=config.channels,
        down_block_types=tuple(
            "AttnDownBlock2D" if a else "DownBlock2D" for a in config.attention
        ),
        up_block_types=tuple(
            "AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)
        ),
        attention_head_dim=config.attention_head_dim,
        norm_num_groups=config.norm_num_groups,
        num_class_embeds=classes + 1 if classes else None,  # the last means no class
    )
    check_room(make, f"network.channels = {list(config.channels)}")
    return make()


def say_notes(model: Denoiser, progress: Progress) -> None:
    """What was loaded, and what was not used of it."""
    for note in model.notes:
        progress.say(note)
