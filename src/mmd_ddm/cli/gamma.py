"""``mmd-ddm gamma``: the vector that the analytic samplers need, estimated once for a model."""

from typing import Annotated

import typer

from mmd_ddm.cli.console import bars, console
from mmd_ddm.config import check_seed

__all__ = ["gamma"]

_SAVE_EVERY = 20


def gamma(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Diffusers folder, or a run that is finished.")
    ],
    data: Annotated[
        str, typer.Option(help="Images the model draws: folder, zip, IDX, .npy/.npz ...")
    ],
    n: Annotated[int, typer.Option("-n", help="Noisy images for each of the T times.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the images chosen and the noise.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    resize: Annotated[bool, typer.Option("--resize", help="Crop and scale images.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Estimate Gamma, which the samplers analytic-dpm and analytic-ddim need, for MODEL.

    It is saved as gamma.json in the folder of MODEL, and is used from there. It costs N network
    calls for each time, N x 1000 in most models. To resume, run the same command again.

    Example: mmd-ddm gamma base --data photos/ -n 1000
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"-n and --batch-size must be at least 1; got {n} and {batch_size}")
    check_seed(seed)

    from dataclasses import replace

    from mmd_ddm.data.images import load_images
    from mmd_ddm.jobs.build import build_device, load_model
    from mmd_ddm.jobs.gamma import second_moments
    from mmd_ddm.models.gamma import Gamma, gamma_file
    from mmd_ddm.runs.fingerprint import weights_sha256

    denoiser = load_model(model, build_device(device)).denoiser
    path = gamma_file(denoiser.source)
    images = load_images(data, denoiser.shape, resize=resize)
    wanted = Gamma(weights_sha256(denoiser.network), data, images.sha256, n, seed)
    found = Gamma.load(path) if path.exists() else wanted
    if replace(found, values=()) != wanted:
        raise ValueError(f"{path} was made otherwise or of another model: delete it first")
    total = len(denoiser.schedule)
    with bars.bar("second moments", total) as bar:
        bar(done=len(found.values))
        moments = second_moments(
            denoiser,
            images.pixels,
            n,
            seed=seed,
            start=len(found.values),
            batch_size=batch_size,
        )
        for value in moments:
            found = replace(found, values=(*found.values, value))
            done = len(found.values)
            bar(done=done, note=f"{value:.4f} at t = {done - 1}")
            if done % _SAVE_EVERY == 0 or done == total:
                found.save(path)
    console.print(f"saved {path}: {n:,} noisy images at each of {total:,} times")
