"""Where the parts of a diffusers model lie: whole, flat, or as training scripts leave them.

A training script of diffusers writes ``checkpoint-500/`` with ``unet/``, and with ``unet_ema/``
if it keeps an average, but the scheduler once, in the folder around. Of two networks the averaged
one is meant.
"""

import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from mmd_ddm.runs.files import read_json, size_text, write_json

__all__ = [
    "VARIANTS",
    "check_room",
    "config_of",
    "lies_beside",
    "load_network",
    "name_part",
    "network_part",
    "quiet",
    "read_scheduler_config",
    "share_weights",
    "variant_of",
    "weights_in_files",
]

_AVERAGED, _NETWORK = "unet_ema", "unet"
_HARMLESS = 2**30  # bytes; smaller networks are built, and what is wrong shows by itself
_STEM = "diffusion_pytorch_model"
VARIANTS = ("fp16", "bf16")  # in names of files
# Of several the first is taken; of `.bin` files no code is run: diffusers reads ``weights_only``.
_FILES = [(None, "safetensors"), (None, "bin"), ("fp16", "safetensors"), ("fp16", "bin")]


def network_part(model: str | Path) -> str:
    """The sub-folder of the network; empty where all lies in one folder.

    Raises:
        ValueError: a folder without a network.
    """
    root = Path(model)
    if not root.exists():
        return _NETWORK if _on_hub(str(model)) else ""
    for part in (_AVERAGED, _NETWORK, ""):
        if (root / part / "config.json").is_file():
            return part
    raise ValueError(
        f"{model} is not a diffusers model: expected unet/config.json beside "
        "scheduler/scheduler_config.json, or both configs in one folder"
    )


def _on_hub(model: str) -> bool:
    from diffusers import UNet2DModel

    try:
        return bool(UNet2DModel.load_config(model, subfolder=_NETWORK))
    except OSError:  # a flat one, whose own error will be told
        return False


def load_network(kind: Any, model: str | Path, part: str, **options: Any) -> Any:
    """What ``kind.from_pretrained`` gives, from whichever file of weights there is.

    Raises:
        OSError: no weights, or none that can be read.
    """
    folder = Path(model) / part
    files = [one for one in _FILES if any((folder / name).is_file() for name in _names(*one))]
    first: OSError | None = None
    for variant, ending in files[:1] or _FILES:  # the hub's files show by asking for them
        try:
            return kind.from_pretrained(
                str(model),
                subfolder=part or None,
                variant=variant,
                use_safetensors=ending == "safetensors",
                **options,
            )
        except OSError as error:
            first = first or error
    assert first is not None
    raise first


def variant_of(pipeline: Path) -> str | None:
    """The variant that a pipeline's network lies there in, where it does in no other way."""
    for variant in (None, *VARIANTS):
        for name in (*_names(variant, "safetensors"), *_names(variant, "bin")):
            if any(pipeline.glob(f"*/{name}")):
                return variant
    return None


def check_room(make: Callable[[], nn.Module], name: str, most: float = math.inf) -> None:
    """Whether a network can be held, asked of one without values, before memory is taken for it.

    Args:
        make: builds it, on whatever device torch makes tensors on.
        name: what says how large it is, for the error.
        most: as many weights as its files can hold.

    Raises:
        ValueError: its config says more than its files hold, or than memory has room for.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        weights = sum(p.numel() for p in make().parameters())
    free = psutil.virtual_memory().available
    room = ""
    if 4 * weights > free:
        room = f"{size_text(free)} of memory are free"
    elif weights > most and 4 * weights > _HARMLESS:
        room = f"its files hold {most:,.0f} at most"
    if room:
        raise ValueError(
            f"{name} asks for {weights:,} weights, {size_text(4 * weights)}, but {room}"
        )


def weights_in_files(model: str | Path, part: str) -> float:
    """At most so many: two bytes each, as in half precision. Of the hub's files, nobody knows."""
    folder = Path(model) / part
    files = [path for path in folder.glob(f"{_STEM}*") if path.suffix in (".safetensors", ".bin")]
    return sum(path.stat().st_size for path in files) / 2 or math.inf


def _names(variant: str | None, ending: str) -> tuple[str, str]:
    """Of the file, and of the index of several."""
    dot = f".{variant}" if variant else ""
    return f"{_STEM}{dot}.{ending}", f"{_STEM}.{ending}.index{dot}.json"


def name_part(folder: Path, part: str, library: str, kind: str) -> None:
    """Say in ``model_index.json`` which class a part of the pipeline is of."""
    index = folder / "model_index.json"
    write_json(index, {**read_json(index), part: [library, kind]})


def share_weights(folder: Path) -> None:
    """Give weights the mode of the config beside them: safetensors lets only their owner read."""
    for weights in folder.rglob("*.safetensors"):
        shutil.copymode(next(weights.parent.glob("*config.json")), weights)


def read_scheduler_config(model: str | Path) -> tuple[dict[str, Any], Path | None]:
    """The scheduler's config, and the folder around the model if it was there only.

    Raises:
        ValueError: there is none.
        OSError: the hub does not give it.
    """
    from diffusers import DDPMScheduler

    if not Path(model).exists():
        try:
            return dict(DDPMScheduler.load_config(str(model), subfolder="scheduler")), None
        except OSError:
            return dict(DDPMScheduler.load_config(str(model))), None
    name = DDPMScheduler.config_name
    for number, place in enumerate(_around(Path(model))):
        if (place / "scheduler" / name).is_file() or (place / name).is_file():
            content = dict(DDPMScheduler.load_config(str(place), subfolder="scheduler"))
            return content, place if number else None
    raise ValueError(f"{model} lacks scheduler/{name}, which says how it was trained")


def config_of(scheduler: Any) -> dict[str, Any]:
    """The config of a live scheduler, with its class, which only files say."""
    return {"_class_name": type(scheduler).__name__, **scheduler.config}


def lies_beside(model: str | Path) -> set[str]:
    """The names of what lies beside a network on this disk, or with it on the hub."""
    around: Iterable[Path] = _around(Path(model)) if Path(model).exists() else ()
    if not around:
        from huggingface_hub import snapshot_download

        with suppress(OSError, ValueError):  # `find_model` has asked for these
            found = snapshot_download(str(model), allow_patterns="*.json", local_files_only=True)
            around = [Path(found)]
    return {part.name for place in around for part in place.iterdir()}


def _around(folder: Path) -> Iterator[Path]:
    """The folder itself; of a network's or a checkpoint's also the folders around it."""
    place = folder.resolve()
    yield place
    while place.name in (_AVERAGED, _NETWORK) or place.name.startswith("checkpoint-"):
        place = place.parent
        yield place


@contextmanager
def quiet() -> Iterator[None]:
    """What goes wrong is raised: within, diffusers neither writes about it nor warns of itself."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
