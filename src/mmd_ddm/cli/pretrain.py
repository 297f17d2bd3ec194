"""``mmd-ddm pretrain``: a base model from images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmd_ddm.cli.console import console, progress_bar, settings

__all__ = ["pretrain"]


def pretrain(
    data: Annotated[
        str, typer.Option(help="Images: folder, zip, IDX, .npy/.npz, or fashion-mnist.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the model is in its model/.")],
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Training iterations.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an iteration.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of Adam.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after so long; run again to go on.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: network.channels=32,64,96")
    ] = None,
) -> None:
    """Train a denoiser from scratch with the denoising loss (Eq. 5).

    To resume, run the same command again.

    Example: mmd-ddm pretrain --data photos/ --out base --iterations 20000
    """
    from dataclasses import replace

    from mmd_ddm.config import PretrainConfig, to_mapping
    from mmd_ddm.runlog import RunLog

    given = {
        "data": data,
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
    }
    chosen = settings(PretrainConfig, config, set_, given)
    limited = replace(chosen, minutes=minutes)

    import torch

    from mmd_ddm.build import build_device, build_network, precision_dtype
    from mmd_ddm.checkpoint import export
    from mmd_ddm.data import load_images
    from mmd_ddm.denoiser import Denoiser
    from mmd_ddm.pretrain import pretrain as train
    from mmd_ddm.schedules import NoiseSchedule

    place = build_device(chosen.device)
    size = chosen.image_size
    images = load_images(data, (3, size, size) if size else None, resize=chosen.resize)
    channels, height, width = images.pixels.shape[1:]
    torch.manual_seed(chosen.seed)
    network = build_network(chosen.network, (channels, height, width)).to(place)
    denoiser = Denoiser(
        network,
        NoiseSchedule.linear(),
        chosen.prediction,
        shape=(channels, height, width),
        autocast=precision_dtype(chosen.precision),
    )
    log = RunLog(out, "pretrain", to_mapping(chosen))
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    console.print(
        f"{len(images):,} images of {height}x{width}, network of {millions:.2f} M on {place}"
    )
    with progress_bar("denoising loss", chosen.iterations) as bar:

        def on_event(**event: Any) -> None:
            log.write(**event)
            if event["event"] == "fault":
                console.print(event["message"])
            else:
                bar(done=event["step"], note=f"loss {event['loss']:.4f}")

        done = train(
            limited,
            denoiser,
            images.pixels.to(place),
            out / "checkpoint.pt",
            on_event,
        )
    if not done:
        console.print(f"stopped after {minutes:g} minutes; run the same command again to go on")
        return
    scheduler = {"num_train_timesteps": 1000, "prediction_type": chosen.prediction}
    export(denoiser, {**scheduler, "clip_sample": False}, None, out / "model", half=True)
    console.print(f"saved {out / 'model'}")
