"""Small pictures as files, and the folders, archives and tables that people keep them in."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

__all__ = ["encode", "picture", "save_files", "save_table", "save_zip", "shades"]


def shades(value: int, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    """One colour, [h, w, 3]."""
    return np.full((size[1], size[0], 3), value, np.uint8)


def encode(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    """A PNG of one colour."""
    return encode(shades(value, size))


def save_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def save_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def save_table(path: Path, **columns: list[bytes]) -> Path:
    """As the hub keeps pictures, beside a column of labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        name: [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(files)]
        for name, files in columns.items()
    }
    n = len(next(iter(table.values())))
    parquet.write_table(pyarrow.table({"label": [*range(n)], **table}), path)
    return path
