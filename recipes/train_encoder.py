"""Train a multi-level encoder (mmd_ddm.features.multilevel) as a classifier, and standardise it.

    python recipes/train_encoder.py --images train-images-idx3-ubyte.gz \
        --labels train-labels-idx1-ubyte.gz --out encoder.safetensors

Images are any source that mmd-ddm reads. Labels are an IDX file of bytes; without one, the names
of the images' folders in a zip archive. The written file is float16 and is read back with
``--features encoder:encoder.safetensors``; its log lies beside it, a line an epoch.
"""

import argparse
import gzip
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmd_ddm.data.images import batch, load_images
from mmd_ddm.features.bank import extract
from mmd_ddm.features.multilevel import MultiLevel
from mmd_ddm.jobs.build import build_device
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator


@dataclass(frozen=True)
class Labelled:
    """Images and their classes."""

    pixels: Tensor  # uint8, [n, c, h, w]
    labels: Tensor  # [n]

    def split(self, held_out: int) -> tuple["Labelled", "Labelled"]:
        """All but the last ``held_out``, and those."""
        n = len(self.labels) - held_out
        return (
            Labelled(self.pixels[:n], self.labels[:n]),
            Labelled(self.pixels[n:], self.labels[n:]),
        )


class Classifier(nn.Module):
    """The encoder with a linear head on its last stage."""

    def __init__(self, phi: MultiLevel, width: int, classes: int) -> None:
        super().__init__()
        self.phi = phi
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.phi.levels(images)[-1].mean((2, 3)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--held-out", type=int, default=5000, help="images for the accuracy")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def read_labels(images: Path, labels: Path | None) -> Tensor:
    """One class index an image, in the order that `load_images` reads them."""
    if labels is not None:
        content = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
        return torch.from_numpy(content.astype(np.int64))
    with zipfile.ZipFile(images) as archive:
        folders = [Path(name).parent.name for name in sorted(archive.namelist()) if "." in name]
    index = {name: i for i, name in enumerate(sorted(set(folders)))}
    return torch.tensor([index[name] for name in folders])


def read_shuffled(images: Path, labels: Path | None, seed: int, device: torch.device) -> Labelled:
    pixels, classes = load_images(images).pixels, read_labels(images, labels)
    if len(pixels) != len(classes):
        raise SystemExit(f"{len(classes)} labels for the {len(pixels)} images of {images}")
    order = torch.randperm(len(pixels), generator=generator(seed, 0, 0, "split"))
    return Labelled(pixels[order].to(device), classes[order].to(device))


def augment(x: Tensor, draw: torch.Generator) -> Tensor:
    """Mirror half of the images, and shift all by up to two pixels."""
    mirrored = torch.rand(len(x), generator=draw, device=x.device) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    dy, dx = torch.randint(
        -2, 3, (2,), generator=torch.Generator().manual_seed(draw.initial_seed())
    )
    return torch.roll(
        nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"), (int(dy), int(dx)), (2, 3)
    )[:, :, 2:-2, 2:-2]


@torch.no_grad()
def accuracy(classifier: Classifier, held_out: Labelled) -> float:
    classifier.eval()
    batched = zip(held_out.pixels.split(500), held_out.labels.split(500), strict=True)
    right = [(classifier(from_uint8(x)).argmax(1) == y).sum() for x, y in batched]
    return float(sum(right)) / len(held_out.labels)


def train(
    classifier: Classifier, data: Labelled, held_out: Labelled, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """AdamW over one cycle of the learning rate; the log, a row an epoch."""
    n, device = len(data.labels), data.pixels.device
    an_epoch = n // args.batch_size
    steps = args.epochs * an_epoch
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    log: list[dict[str, Any]] = []
    began, losses = time.monotonic(), []
    for step in range(1, steps + 1):
        classifier.train()
        index = batch(n, args.batch_size, args.seed, step - 1).to(device)
        draw = generator(args.seed, 0, step, "encoder", device)
        x = augment(from_uint8(data.pixels[index]), draw)
        loss = loss_of(classifier(x), data.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % an_epoch == 0:
            row = {
                "step": step,
                "loss": float(torch.stack(losses).mean()),
                "held_out_accuracy": accuracy(classifier, held_out),
                "seconds": round(time.monotonic() - began, 1),
            }
            print(json.dumps(row), flush=True)
            log.append(row)
            losses.clear()
    return log


def standardise(phi: MultiLevel, pixels: Tensor) -> None:
    """Set the mean and deviation of every dimension to those of these images."""
    phi.freeze()
    features = extract(pixels, phi, device=pixels.device)
    phi.mean.copy_(features.mean(0))
    phi.std.copy_(features.std(0).clamp_min(1e-3))


def write(phi: MultiLevel, log: list[dict[str, Any]], out: Path) -> None:
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in phi.state_dict().items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out)
    out.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    device = build_device("auto")
    everything = read_shuffled(args.images, args.labels, args.seed, device)
    data, held_out = everything.split(args.held_out)
    torch.manual_seed(args.seed)
    phi = MultiLevel(data.pixels.shape[1], tuple(args.widths))
    classes = int(everything.labels.max()) + 1
    classifier = Classifier(phi, args.widths[-1], classes).to(device)
    log = train(classifier, data, held_out, args)
    standardise(phi, data.pixels)
    write(phi, log, args.out)


if __name__ == "__main__":
    main()
