"""``mmd-ddm genie-head``: the derivative that the sampler of that name needs, distilled once."""

from typing import Annotated, Any

import typer

from mmd_ddm.cli.console import bars, console, settings

__all__ = ["genie_head"]


def genie_head(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Diffusers folder, or a run that is finished.")
    ],
    data: Annotated[
        str, typer.Option(help="Images the model draws: folder, zip, IDX, .npy/.npz ...")
    ],
    iterations: Annotated[int | None, typer.Option(help="Training iterations.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an iteration.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of images and the noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Crop and scale images.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: ema_decay=0.999")
    ] = None,
) -> None:
    """Distil the exact derivative of MODEL into a small head, for the sampler genie-head.

    The run and the head are kept in MODEL's folder, in genie-head/, and are used from there. The
    network stays as it is. To resume, run the same command again.

    Example: mmd-ddm genie-head base --data photos/
    """
    from mmd_ddm.config import HeadConfig, to_mapping

    given = {
        "data": data,
        "resize": resize,
        "iterations": iterations,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "device": device,
    }
    config = settings(HeadConfig, None, set_, given)

    import torch

    from mmd_ddm.data.images import load_images
    from mmd_ddm.jobs.build import build_device, load_model
    from mmd_ddm.models.genie_head import GenieHead, head_folder
    from mmd_ddm.runs.fingerprint import weights_sha256
    from mmd_ddm.runs.folder import OutputError, RunLog
    from mmd_ddm.training.genie_head import distil

    denoiser = load_model(model, build_device(config.device)).denoiser
    folder, weights = head_folder(denoiser.source), weights_sha256(denoiser.network)
    images = load_images(data, denoiser.shape, resize=resize)
    inputs = {"data_sha256": images.sha256, "weights_sha256": weights}
    try:
        log = RunLog(folder, "genie-head", to_mapping(config), inputs)
    except OutputError as error:
        raise ValueError(f"{error} (here: delete {folder})") from error
    layer: Any = denoiser.network.conv_norm_out
    torch.manual_seed(config.seed)
    head = GenieHead(denoiser.shape[0], layer.num_channels, layer.num_groups)
    with bars.bar("derivative", config.iterations) as bar:

        def on_event(**event: Any) -> None:
            log.write(**event)
            if event["event"] == "fault":
                console.print(event["message"])
            else:
                bar(done=event["step"], note=f"error {event['loss']:.4f}")

        head.to(denoiser.device)
        pixels = images.pixels.to(denoiser.device)
        distil(config, denoiser, head, pixels, folder / "checkpoint.pt", on_event)
    head.save(denoiser.source, weights)
    console.print(f"saved {folder}")
