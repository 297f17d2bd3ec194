"""Pictures in folders, zip archives and parquet tables, read as data that nobody vouches for.

What is plainly no picture of the set is *skipped* and listed: files of other kinds, hidden files
and folders, what a Mac adds to archives (``__MACOSX/``), links to folders, and, beside a
``run.json`` of ours, every picture whose name is not a number (``grid.png``). What looks like a
picture and cannot be used as one is *refused*, by name: a set with holes is another set.

Only four formats are decoded, up to Pillow's limit of pixels; archives are read in memory, and
the names in them are labels, never paths.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from mmd_ddm.data.parquet import choose_tables, read_rows

__all__ = ["decode", "each_picture", "read_pictures"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_MODES = {1: "L", 3: "RGB"}
_MAX_BYTES = 2**28  # of one file in an archive, unpacked


def read_pictures(
    path: Path, shape: tuple[int, int, int] | None, resize: bool
) -> tuple[UInt8[Tensor, "n c h w"], tuple[str, ...]]:
    """All pictures of a folder, zip archive or parquet table, in order, and what was skipped.

    Args:
        path: the folder, archive or table.
        shape: (c, h, w) of every picture; None takes the first one's size, and colour.
        resize: crop, scale and convert instead of refusing.

    Raises:
        ValueError: nothing to read, or a file that is refused; the message names it.
    """
    pictures: list[Tensor] = []
    skipped: list[str] = []
    for name, content in each_picture(path, skipped):
        if shape is None and pictures:
            first = pictures[0].shape
            shape = (first[0], first[1], first[2])
        pictures.append(decode(name, content, shape, resize=resize))
    if not pictures:
        raise ValueError(f"{path} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return torch.stack(pictures), tuple(skipped)


def each_picture(path: Path, skipped: list[str]) -> Iterator[tuple[str, bytes]]:
    """The pictures' files of a folder, zip archive or parquet table, undecoded, with their names.

    Args:
        path: the folder, in which tables are read where there are no pictures; archive or table.
        skipped: gets the names of files that were taken for no pictures.

    Raises:
        ValueError: what cannot be read; the message names it.
    """
    if path.suffix.lower() == ".parquet":
        yield from read_rows(path)
    elif path.is_dir():
        yield from _folder(path, skipped)
    else:
        yield from _archive(path, skipped)


def _folder(path: Path, skipped: list[str]) -> Iterator[tuple[str, bytes]]:
    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot read the folder {error.filename}: {error.strerror}")

    names = []
    for root, folders, files in os.walk(path, onerror=refuse):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        below = Path(root).relative_to(path)
        names += [(below / name).as_posix() for name in (*files, *links)]
    chosen = list(_choose(names, skipped))
    if not chosen:
        for table in choose_tables(path):
            skipped.remove(table.relative_to(path).as_posix())
            yield from read_rows(table)
    for name in chosen:
        file = path / name
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ValueError(f"{file} is not a regular file")
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {file}: {error.strerror}") from error


def _archive(path: Path, skipped: list[str]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
            for name in _choose(sizes, skipped):
                if sizes[name] > _MAX_BYTES:
                    raise ValueError(f"{name} unpacks to {sizes[name]:,} bytes")
                yield f"{path}:{name}", archive.read(name)
    except Exception as error:  # a damaged or encrypted archive raises a dozen kinds
        raise ValueError(f"cannot read the archive {path}: {error}") from error


def _choose(names: Iterable[str], skipped: list[str]) -> Iterator[str]:
    """The pictures among them, sorted; the others go to ``skipped``."""
    paths = sorted(PurePosixPath(name) for name in names)
    runs = {path.parent for path in paths if path.name == "run.json"}
    for path in paths:
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        sheet = path.parent in runs and not path.stem.isdecimal()
        if hidden or sheet or path.suffix.lower() not in _SUFFIXES:
            skipped.append(str(path))
        else:
            yield str(path)


def decode(
    name: str,
    content: bytes,
    shape: tuple[int, int, int] | None,
    *,
    resize: bool,
    crop: tuple[int, int, int, int] | None = None,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> UInt8[Tensor, "c h w"]:
    """One picture.

    Args:
        name: for messages.
        content: of its file.
        shape: (c, h, w) that it must have; None takes its own size, and colour.
        resize: crop, scale and convert instead of refusing.
        crop: left, upper, right and lower edge, cut out first of a picture that has not the size.
        resample: how it is scaled.

    Raises:
        ValueError: a file that is refused; the message names it.
    """
    channels = 3 if shape is None else shape[0]
    if channels not in _MODES:
        raise ValueError(f"{name}: a picture has 1 or 3 channels; the model takes {channels}")
    picture = _open(name, content, _MODES[channels], resize)
    if shape is not None and (picture.height, picture.width) != shape[1:]:
        if crop is not None:
            if picture.width < crop[2] or picture.height < crop[3]:
                raise ValueError(
                    f"{name} is {picture.width}x{picture.height} pixels; the crop of this set "
                    f"reaches to {crop[2]}x{crop[3]}"
                )
            picture = picture.crop(crop)
        if not resize:
            raise ValueError(
                f"{name} is {picture.width}x{picture.height} pixels; the model takes "
                f"{shape[2]}x{shape[1]}; pass --resize to crop and scale"
            )
        picture = _crop_and_scale(picture, shape[1], shape[2], resample)
    array = np.array(picture).reshape(picture.height, picture.width, channels)
    return torch.from_numpy(array).permute(2, 0, 1)


def _open(name: str, content: bytes, mode: str, resize: bool) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
                frames = getattr(opened, "n_frames", 1) if opened.format != "MPO" else 1
                upright = ImageOps.exif_transpose(opened)
        transparent = _is_transparent(upright)
    except Exception as error:  # a damaged file raises a dozen kinds
        raise ValueError(f"cannot read the image {name}: {error}") from error
    if frames > 1:
        raise ValueError(f"{name} is animated, {frames} frames; save the one that you mean")
    if transparent:
        raise ValueError(f"{name} is partly transparent; lay it on a ground first")
    # Pillow would saturate them: all white.
    if upright.mode[0] in "IF":
        raise ValueError(f"{name} has more than 8 bits a channel; convert it to 8 bits first")
    if mode == "L" and upright.mode not in ("L", "1", "LA") and not resize:
        raise ValueError(
            f"{name} has channels {upright.mode}; the model takes 1 (grey); pass --resize to "
            "convert it"
        )
    return upright.convert(mode)


def _is_transparent(picture: Image.Image) -> bool:
    if not picture.has_transparency_data:
        return False
    return picture.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _crop_and_scale(
    picture: Image.Image, height: int, width: int, resample: Image.Resampling
) -> Image.Image:
    scale = min(picture.width / width, picture.height / height)
    crop_w, crop_h = width * scale, height * scale
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return picture.resize((width, height), resample, box=box)
