"""Reading a large set: seconds beside torchvision's ImageFolder loop, and peak memory.

A folder of made-up JPEG pictures in classes is read, each way in a process of its own: by
torchvision, picture by picture; by us, decoded into the cache; and again by us from the cache,
with all that a finetuning does before its first iteration: split, held-out copies looked for,
hashed, and seen by a feature space of few dimensions, as vectors are what is held. Seconds are the
processor's. Pages of the cache count as memory while they are this process's, though the system
may take them back at any time.

    python benchmarks/data.py
"""

import argparse
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import measure_apart, peak_memory, timed, write

from mmd_ddm.data.images import load_images
from mmd_ddm.data.split import split_images
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.registry import make_features

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("benchmarks-out"))
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    parser.add_argument("--way", default="", choices=["", *WAYS], help="measure this one alone")
    parser.add_argument("--folder", type=Path, help="of its pictures")
    parser.add_argument("--point", action="store_true", help="print JSON")
    settings = parser.parse_args()
    if settings.point:
        seconds = timed(lambda: WAYS[settings.way](settings.folder, settings.size), CPU)
        peak = round(peak_memory(CPU))
        print(json.dumps({"way": settings.way, "seconds": round(seconds, 1), "peak MiB": peak}))
        return
    with tempfile.TemporaryDirectory() as place:
        os.environ["MMD_DDM_CACHE"] = f"{place}/cache"
        folder = Path(place, "pictures")
        save_pictures(folder, settings.pictures, settings.size)
        rows = [
            measure_apart(__file__, way=way, folder=folder, size=settings.size) for way in WAYS
        ]
    write("data", settings.out, settings, rows)


def save_pictures(folder: Path, n: int, size: int) -> None:
    """Smooth JPEG pictures, all different, in ten classes."""
    draw = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(draw.integers(0, 256, (size // 8, size // 8, 3), np.uint8))
        content = io.BytesIO()
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        (folder / str(i % 10) / f"{i:06d}.jpg").write_bytes(content.getvalue())


def by_torchvision(folder: Path, size: int) -> None:
    from torchvision.datasets import ImageFolder

    for picture, _ in ImageFolder(folder):
        np.asarray(picture)


def by_us(folder: Path, size: int) -> None:
    load_images(folder, (3, size, size), labels=True)


def by_us_again(folder: Path, size: int) -> None:
    images = load_images(folder, (3, size, size), labels=True)
    parts = split_images(images, None, seed=0, select=True)
    assert len(parts.hashes) == 6
    cached_features(parts.matched, make_features("frequencies", 3))


WAYS = {"torchvision": by_torchvision, "decoded": by_us, "from the cache": by_us_again}

if __name__ == "__main__":
    main()
