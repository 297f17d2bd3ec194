"""Train a multi-level encoder (mmd_ddm.features.multilevel) as a classifier, and standardise it.

    python recipes/train_encoder.py --images train-images-idx3-ubyte.gz \
        --labels train-labels-idx1-ubyte.gz --out encoder.safetensors

Images are any source that mmd-ddm reads. Labels are an IDX file of bytes; without one, the names
of the images' folders in a zip archive. The written file is float16 and is read back with
``--features encoder:encoder.safetensors``.
"""

import argparse
import gzip
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmd_ddm.bank import extract
from mmd_ddm.build import build_device
from mmd_ddm.data import batches, load_images
from mmd_ddm.features.multilevel import MultiLevel
from mmd_ddm.images import from_uint8
from mmd_ddm.rng import generator


def read_labels(images: Path, labels: Path | None) -> Tensor:
    """One class index an image, in the order that `load_images` reads them."""
    if labels is not None:
        return torch.from_numpy(
            np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8).astype(
                np.int64
            )
        )
    with zipfile.ZipFile(images) as archive:
        folders = [Path(name).parent.name for name in sorted(archive.namelist()) if "." in name]
    index = {name: i for i, name in enumerate(sorted(set(folders)))}
    return torch.tensor([index[name] for name in folders])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--held-out", type=int, default=5000, help="images for the accuracy")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    device = build_device("auto")
    pixels, labels = load_images(args.images).pixels, read_labels(args.images, args.labels)
    order = torch.randperm(len(pixels), generator=generator(args.seed, 0, 0, "split"))
    pixels, labels = pixels[order].to(device), labels[order].to(device)
    train = len(pixels) - args.held_out

    torch.manual_seed(args.seed)
    # IDX images are grey whatever the loader's default.
    phi = MultiLevel(pixels.shape[1], tuple(args.widths)).to(device)
    head = nn.Linear(args.widths[-1], int(labels.max()) + 1).to(device)
    parameters = [*phi.parameters(), *head.parameters()]
    steps = args.epochs * (train // args.batch_size)
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)

    log, began, losses = [], time.monotonic(), []
    for step, index in zip(range(1, steps + 1), batches(train, args.batch_size, args.seed)):
        phi.train()
        index = index.to(device)
        draw = generator(args.seed, 0, step, "encoder", device)
        x = augment(from_uint8(pixels[index]), draw)
        loss = loss_of(head(phi.levels(x)[-1].mean((2, 3))), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % max(1, steps // args.epochs) == 0 or step == steps:
            phi.freeze()
            with torch.no_grad():
                right = [
                    (head(phi.levels(from_uint8(x))[-1].mean((2, 3))).argmax(1) == y).sum()
                    for x, y in zip(pixels[train:].split(500), labels[train:].split(500))
                ]
            phi.requires_grad_(True)
            accuracy = float(sum(right)) / args.held_out
            mean = float(torch.stack(losses).mean())
            log.append(
                {"step": step, "loss": mean, "held_out_accuracy": accuracy,
                 "seconds": round(time.monotonic() - began, 1)}
            )  # fmt: skip
            print(json.dumps(log[-1]), flush=True)
            losses.clear()

    phi.freeze()
    features = extract(pixels[:train], phi, device=device)
    phi.mean.copy_(features.mean(0))
    phi.std.copy_(features.std(0).clamp_min(1e-3))
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in phi.state_dict().items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, args.out)
    args.out.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


if __name__ == "__main__":
    main()
