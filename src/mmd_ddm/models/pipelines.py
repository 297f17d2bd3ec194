"""Pipelines of diffusers from their folders: with weights as their files have them, or with none.

What lies in half precision is held in bfloat16: as many bytes, and a range that float16 has not,
in which gradients vanish and decoders overflow.
"""

import inspect
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mmd_ddm.models.find import read_index, shorten
from mmd_ddm.models.parts import VARIANTS, read_scheduler_config, variant_of
from mmd_ddm.models.shipped import scheduling_few_step

__all__ = ["copy_pipeline", "load_pipeline", "load_tiny_decoder", "skeleton", "with_parts"]

_FEW_STEP = scheduling_few_step.FewStepScheduler
# By whose latents they decode, the decoders of Ollin Boer Bohan (TAESD).
_TINY = {
    "DiTPipeline": "madebyollin/taesd",
    "FluxPipeline": "madebyollin/taef1",
    "LatentConsistencyModelPipeline": "madebyollin/taesd",
    "PixArtAlphaPipeline": "madebyollin/taesd",
    "PixArtSigmaPipeline": "madebyollin/taesdxl",
    "StableDiffusion3Pipeline": "madebyollin/taesd3",
    "StableDiffusionPipeline": "madebyollin/taesd",
    "StableDiffusionXLPipeline": "madebyollin/taesdxl",
}
_HALVES = {"F16", "BF16"}


def load_pipeline(model: str | Path, **parts: Any) -> Any:
    """The pipeline of a folder or hub id, with these parts in place of its own."""
    from diffusers import DiffusionPipeline

    folder = _folder_of(model)
    types: dict[str, torch.dtype] = {"default": torch.float32, **_halves(folder)}
    return DiffusionPipeline.from_pretrained(
        folder, variant=variant_of(folder), torch_dtype=types, **_own_scheduler(folder), **parts
    )


def skeleton(model: str | Path) -> Any:
    """The same with weights on the meta device: of no values, for which no memory is taken."""
    import diffusers
    from huggingface_hub import snapshot_download

    folder = Path(model)
    if not folder.is_dir():
        small = ["*.json", "*.txt", "*.model"]  # all but weights
        folder = Path(snapshot_download(str(model), allow_patterns=small))
    index, halves, parts = read_index(folder), _halves(folder), _own_scheduler(folder)
    for name, told in index.items():
        if name in parts or not isinstance(told, list | tuple) or len(told) != 2:
            continue
        known = told[0] in ("diffusers", "transformers")  # not checks of what is drawn
        kind = getattr(import_module(told[0]), told[1]) if known else None
        parts[name] = kind and _without_values(kind, folder / name, halves.get(name))
    made = getattr(diffusers, index["_class_name"])
    taken = inspect.signature(made.__init__).parameters.keys() & index.keys()
    return made(**{key: index[key] for key in taken} | parts)


def load_tiny_decoder(name: str, pipeline: str) -> Any:
    """An ``AutoencoderTiny``.

    Args:
        name: its folder or hub id, or ``tiny``.
        pipeline: the class whose latents it decodes.

    Raises:
        ValueError: there is none.
    """
    from diffusers import AutoencoderTiny

    place = _TINY.get(pipeline, "") if name == "tiny" else name
    if not place:
        raise ValueError(
            f"no small decoder is known for {pipeline}: give the folder of an AutoencoderTiny"
        )
    try:
        kind = AutoencoderTiny.load_config(place).get("_class_name")
        if kind != AutoencoderTiny.__name__:
            raise ValueError(f"it is of class {kind}")
        return AutoencoderTiny.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no AutoencoderTiny at {place} (offline? download it elsewhere and give its folder): "
            f"{shorten(error)}"
        ) from error


def with_parts(pipeline: Any, parts: Mapping[str, Any]) -> Any:
    """A pipeline of the same class and parts, but for these."""
    given = {**pipeline.components, **{k: v for k, v in parts.items() if v is not None}}
    known = inspect.signature(type(pipeline).__init__).parameters.keys() & pipeline.config.keys()
    made = type(pipeline)(**{key: pipeline.config[key] for key in known} | given)
    if hasattr(pipeline, "labels"):  # DiT's names of classes, which no part of it holds
        made.labels = pipeline.labels
    return made


def copy_pipeline(model: str | Path, folder: Path, *without: str) -> None:
    """Copy its files but those of these parts, under names that diffusers looks for by itself."""
    source = _folder_of(model)
    shutil.copytree(
        source, folder, ignore=shutil.ignore_patterns(*without, ".*"), dirs_exist_ok=True
    )
    variant = variant_of(source)
    for file in folder.rglob(f"*.{variant}*") if variant else ():
        if file.suffix == ".json":  # the list of several
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(f".{variant}", ""), encoding="utf-8")
        file.rename(file.with_name(file.name.replace(f".{variant}", "")))


def _folder_of(model: str | Path) -> Path:
    from diffusers import DiffusionPipeline

    return Path(model) if Path(model).is_dir() else Path(DiffusionPipeline.download(str(model)))


def _own_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler that travels with what was finetuned, if there is one.

    It is the class of this package, and not the file beside it, which would have to be trusted.
    """
    config, _ = read_scheduler_config(folder)
    if config.get("_class_name") != _FEW_STEP.__name__:
        return {}
    # diffusers looks up the class that the folder names, even of a part that it is given.
    sys.modules.setdefault("scheduling_few_step", scheduling_few_step)
    return {"scheduler": _FEW_STEP.from_config(config)}


def _halves(folder: Path) -> dict[str, torch.dtype]:
    """The parts whose weights lie in half precision, with the type that they are held in."""
    found, variant = {}, variant_of(folder)
    for path in folder.glob("*/*.safetensors"):
        if [one for one in VARIANTS if f".{one}" in path.name] != [variant] * bool(variant):
            continue
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}
        if kinds & _HALVES:
            found[path.parent.name] = torch.bfloat16
    return found


def _without_values(kind: Any, folder: Path, half: torch.dtype | None) -> Any:
    """A part of that class by its config alone; what has no weights is loaded."""
    if not issubclass(kind, torch.nn.Module):
        return kind.from_pretrained(folder)
    with torch.device("meta"):
        if getattr(kind, "config_class", None):  # of transformers
            made = kind(kind.config_class.from_pretrained(folder))
        else:
            made = kind.from_config(kind.load_config(folder))
    return made.eval() if half is None else made.eval().to(half)
