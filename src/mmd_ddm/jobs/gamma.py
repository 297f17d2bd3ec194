"""Gamma, which the analytic samplers need, estimated once: what ``mmd-ddm gamma`` runs."""

from collections.abc import Iterator
from dataclasses import asdict, replace

import torch
from torch import Tensor

from mmd_ddm.config import ReadConfig, check_seed
from mmd_ddm.data.images import load_images, say_read
from mmd_ddm.data.stored import Stored
from mmd_ddm.jobs.build import Model, load_model, say_notes
from mmd_ddm.jobs.results import Results
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.maths.schedules import betas_of
from mmd_ddm.models.gamma import Gamma, gamma_file
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.files import alone_at, check_writable
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["estimate_gamma", "second_moments"]

_SAVE_EVERY = 20


def estimate_gamma(
    model: str | Model,
    data: str,
    *,
    n: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    read: ReadConfig | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Results:
    """Estimate Gamma, and keep it as ``gamma.json`` in the model's folder. The same call resumes.

    Args:
        model: that is in a folder.
        data: images that it draws.
        n: noisy images for each of the T times.
        seed: of the images chosen and the noise.
        batch_size: images at once.
        read: how images are read.
        device: where to compute, for a model that is named.
        progress: told what is done.

    Returns:
        The content of the file, and the model's folder.

    Raises:
        ValueError: a model that is in no folder, or a file that was made otherwise.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"-n and --batch-size must be at least 1; got {n} and {batch_size}")
    check_seed(seed)
    denoiser = load_model(model, device).denoiser
    say_notes(denoiser, progress)
    path = gamma_file(denoiser.source)
    check_writable(path)
    if denoiser.classes:
        raise ValueError(f"{denoiser.source} is class-conditional: Gamma is of models without")
    images = load_images(data, denoiser.shape, read, progress=progress)
    say_read(progress, images)
    weights, of = weights_sha256(denoiser.network), denoiser.sha256
    wanted = Gamma(weights, data, images.sha256, n, seed, model=of)
    with alone_at(path, "wait for its end"):
        found = Gamma.load(path) if path.exists() else wanted
        # The same images by another name are the same.
        if replace(found, values=(), data=data, model=found.model or of) != wanted:
            raise ValueError(f"{path} was made otherwise or of another model: delete it first")
        total, start = len(denoiser.schedule), len(found.values)
        with progress.bar("second moments", total) as bar:
            bar(done=start)
            moments = second_moments(
                denoiser, images.store, n, seed=seed, start=start, batch_size=batch_size
            )
            for t, value in enumerate(moments, start):
                found = replace(found, values=(*found.values, value))
                bar(done=t + 1, note=f"{value:.4f} at t = {t}")
                if (t + 1) % _SAVE_EVERY == 0 or t + 1 == total:
                    found.save(path)
    return Results(asdict(found), path.parent)


def second_moments(
    denoiser: Denoiser,
    pixels: Tensor | Stored,
    samples: int,
    *,
    seed: int,
    start: int,
    batch_size: int,
) -> Iterator[float]:
    """Gamma_t for t = start ... T-1, each from noisy images of its own.

    Args:
        denoiser: on its device.
        pixels: uint8, [n, c, h, w]; chosen from at random.
        samples: noisy images a time.
        seed: of the choice and the noise; with t, it names the draw.
        start: the first time wanted.
        batch_size: images at once.
    """
    schedule = betas_of(denoiser.schedule, "Gamma")
    for t in range(start, len(schedule)):
        draw = generator(seed, 0, t, "gamma")
        alpha_t, sigma_t = schedule(t)
        total = 0.0
        for rows in torch.randint(len(pixels), (samples,), generator=draw).split(batch_size):
            x_0 = from_uint8(pixels[rows])
            x_t = alpha_t * x_0 + sigma_t * torch.randn(x_0.shape, generator=draw)
            with torch.no_grad():
                eps = denoiser.eps(x_t.to(denoiser.device), t)
            total += float(eps.square().mean((1, 2, 3)).sum())
        yield total / samples
