"""The real images that models are judged by: none of them was matched, or selected by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.images import ImageSet, load_images, say_read
from mmd_ddm.data.split import without
from mmd_ddm.jobs.build import Model, check_classes
from mmd_ddm.jobs.origin import Origin
from mmd_ddm.runs.progress import Progress

__all__ = ["RealImages", "choose_real", "leave_out_seen"]

_Runs = Mapping[str, Origin | None]
_Shape = tuple[int, int, int]


@dataclass(frozen=True)
class RealImages:
    """Images to judge by.

    Attributes:
        images: without those that a run has seen.
        protocol: how many were left out, and of which runs that is not known.
    """

    images: ImageSet
    protocol: dict[str, Any]

    @property
    def otherwise(self) -> str:
        """The role of a space that no run optimised: no judge, if its images may be seen ones."""
        return "unknown" if "seen_unknown" in self.protocol else "held-out"


def choose_real(
    data: str | ImageSet | None,
    runs: _Runs,
    shape: _Shape,
    read: ReadConfig,
    progress: Progress,
    models: Sequence[Model],
) -> RealImages:
    """The images asked for, less those that any of the runs matched or selected by.

    Args:
        data: by name or loaded; None takes what the first run held out.
        runs: of finetuned models, as `mmd_ddm.jobs.origin.origins` gives them.
        shape: (c, h, w) of what is judged.
        read: how images that are named are read.
        progress: told what is left out.
        models: that are judged by them; if one is conditional, classes or captions are read.

    Raises:
        ValueError: no images and no run, images of another shape, none that are left, or classes
            that a model does not have.
    """
    if data is None:
        data = _heldout(runs, shape)
    elif isinstance(data, str):
        labels = any(model.denoiser.classes for model in models)
        captions = any(model.denoiser.of_captions for model in models)
        data = load_images(data, shape, read, labels=labels, captions=captions, progress=progress)
    if data.shape != shape:
        got, asked = ("x".join(map(str, size)) for size in (data.shape, shape))
        raise ValueError(f"{data.source} holds images of {got}; those to judge are {asked}")
    check_classes(models, data)
    say_read(progress, data)
    return leave_out_seen(data, runs, shape, progress)


def leave_out_seen(images: ImageSet, runs: _Runs, shape: _Shape, progress: Progress) -> RealImages:
    """These images, less those that any of the runs matched or selected by.

    Raises:
        ValueError: none are left.
    """
    seen, unknown = _seen(images, runs, shape)
    fresh = without(images, *seen)
    dropped = len(images) - len(fresh)
    if dropped == len(images):
        raise ValueError(
            f"all {dropped:,} images of {images.source} were matched or selected by: give others "
            "with --data, or none for those that the run held out"
        )
    protocol: dict[str, Any] = {"seen_dropped": dropped} if runs else {}
    if dropped:
        progress.say(
            f"{dropped:,} of the {len(images):,} images of {images.source} were matched or "
            "selected by: left out"
        )
        images = fresh
    if unknown:
        protocol["seen_unknown"] = "; ".join(unknown)
        progress.say(
            f"nobody knows which images of {images.source} were matched by "
            f"{protocol['seen_unknown']}: roles that would be held-out are unknown"
        )
    return RealImages(images, protocol)


def _heldout(runs: _Runs, shape: _Shape) -> ImageSet:
    name, origin = next((item for item in runs.items() if item[1]), ("", None))
    if origin is None:
        raise ValueError("no run of finetune that held images out: give real images with --data")
    try:
        return origin.data(shape).heldout
    except ValueError as error:
        raise ValueError(
            f"what {name} held out cannot be loaded: give real images with --data ({error})"
        ) from error


def _seen(images: ImageSet, runs: _Runs, shape: _Shape) -> tuple[list[ImageSet], list[str]]:
    """The images that the runs matched and selected by, and of which runs nobody knows them."""
    seen: list[ImageSet] = []
    unknown: list[str] = []
    for name, origin in runs.items():
        if origin is None:
            unknown.append(f"{name} (its run is not there)")
        elif origin.inputs.get("heldout_sha256") != images.sha256:
            try:
                parts = origin.data(shape)
            except ValueError as error:
                unknown.append(f"{name} ({error})")
            else:
                seen += [part for part in (parts.matched, parts.selection) if part]
    return seen, unknown
