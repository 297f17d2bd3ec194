"""The search for training images near the samples of a run: the work of ``mmd-ddm neighbors``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mmd_ddm.config import check_seed
from mmd_ddm.data.images import ImageSet, say_read
from mmd_ddm.evaluation.metrics.copies import Nearest, authentic, nearer, nearest
from mmd_ddm.evaluation.space import metric_device
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.features.registry import FeatureExtractor, make_features
from mmd_ddm.jobs.build import build_data, build_device
from mmd_ddm.jobs.origin import origins
from mmd_ddm.jobs.real_images import leave_out_seen
from mmd_ddm.jobs.results import Results, load_result
from mmd_ddm.maths.random import COPIES
from mmd_ddm.report.sheets import grid, save_sheet, sheet, zoom
from mmd_ddm.runs.files import check_writable, write_json
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.folder import RunLog, check_folder
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.draw import draw

__all__ = ["find_copies"]

_ROWS = 6
_ALPHA = 0.01
_RULE = (
    "Copying is suspected where finetuned samples lie nearer to the training images than held-out "
    f"real images do, by a one-sided Mann-Whitney test of the distances at p < {_ALPHA}. A sample "
    "is not authentic where it lies nearer to a training image than that image's own nearest does."
)
_REAL = "held-out real"


def find_copies(
    run: str | Path,
    *,
    data: str = "",
    space: str = "",
    n: int = 1000,
    k: int = 4,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> Results:
    """Find the training images nearest to samples of the base and of the finetuned model.

    Args:
        run: a finished finetuning.
        data: training images; by default those of the run.
        space: of the distances; by default the run's first judge.
        n: images drawn with either model, and at most so many real ones beside them.
        k: neighbours shown.
        out: folder for ``neighbors.png`` (the paper's Figs. 3 and 8) and ``neighbors.json``; by
            default the run's ``neighbors``, where a report finds it.
        seed: of the first image.
        device: where to compute.
        progress: told what is done.

    Returns:
        The content of ``neighbors.json``.

    Raises:
        ValueError: no such run, unknown data or space, fewer training images than neighbours, a
            folder that holds something else.
    """
    if n < 2 or k < 1:
        raise ValueError(f"-n must be at least 2 and -k at least 1; got {n} and {k}")
    check_seed(seed)
    out = out or Path(run) / "neighbors"
    check_writable(out)
    place = build_device(device)
    result = load_result(run, place)
    config, shape = result.config, result.model.denoiser.shape
    data = data or config.data
    runs = origins([result.model])
    named = runs[result.model.name]
    make = named.features if named and not space else make_features
    space = space or [*config.judges, *config.objective.features][0]
    settings = {"data": data, "space": space, "n": n, "k": k, "seed": seed}
    check_folder(out, "neighbors", settings)
    own = named if data == config.data else None
    split = build_data(
        replace(config, data=data), shape, labels=bool(own and own.labelled),
        captions=bool(own and own.captioned), progress=progress,
    )  # fmt: skip
    train = split.matched
    held = leave_out_seen(split.heldout, runs, shape, progress)
    real = held.images.subset(n)
    if len(train) < max(k, 2):
        raise ValueError(f"{train.source} holds {len(train)} images; -k {k} takes more")
    phi = make(space, shape[0]).to(place)
    samplers = result.samplers
    inputs = {**result.hashes, **split.hashes, "space_sha256": key_of([phi.sha256])}
    with RunLog(out, "neighbors", settings, inputs):
        say_read(progress, train)
        drawn = {
            name: _draw(name, sampler, n, seed, progress) for name, sampler in samplers.items()
        }
        other = metric_device(place)
        bank = _features(train, phi, place, progress).to(other)
        with progress.bar("nearest training images", 3) as bar:
            found = {}
            for name, pixels in {**drawn, _REAL: real.pixels}.items():
                found[name] = nearest(extract(pixels, phi, device=place).to(other), bank, k)
                bar(advance=1, note=name)
        finding = _finding(found, bank)
        told = {
            "sentence": _sentence(finding, space),
            "rule": _RULE,
            "space": {"name": space, "sha256": phi.sha256},
            "data": {"source": train.source, "images": len(train), "sha256": train.sha256},
            "n": n,
            "real": len(real),
            **held.protocol,
            "seed": seed,
            **finding,
        }
        save_sheet(_picture(drawn, found, train, k), out / "neighbors.png")
        write_json(out / "neighbors.json", told)
    return Results(told, out)


def _draw(name: str, sampler: Sampler, n: int, seed: int, progress: Progress) -> Tensor:
    with progress.bar(f"{name}, {len(sampler.times)} steps", n) as bar:
        return draw(sampler, n, seed=seed, purpose=COPIES, on_batch=lambda k: bar(advance=k))[0]


def _features(
    images: ImageSet, phi: FeatureExtractor, device: torch.device, progress: Progress
) -> Tensor:
    with progress.bar("training images", len(images)) as bar:
        features = cached_features(images, phi, device=device, on_batch=lambda m: bar(advance=m))
        bar(done=len(images))
    return features


def _finding(found: Mapping[str, Nearest], bank: Tensor) -> dict[str, Any]:
    """The numbers: distances, tests of them, shares that are not authentic."""
    first = {name: near.distance[:, 0] for name, near in found.items()}
    levels = (0.01, 0.05, 0.25, 0.5, 0.75)
    points = torch.tensor(levels, dtype=torch.float64, device=bank.device)
    tests = {
        f"{name} than {other}": nearer(first[name], first[other])._asdict()
        for name, other in (("base", _REAL), ("finetuned", _REAL), ("finetuned", "base"))
    }
    quantiles = {
        name: dict(zip(map(str, levels), d.quantile(points).tolist(), strict=True))
        for name, d in first.items()
    }
    return {
        "copying": tests[f"finetuned than {_REAL}"]["p"] < _ALPHA,
        "not_authentic": {
            name: 1 - float(authentic(near, bank).double().mean()) for name, near in found.items()
        },
        "nearer": tests,
        "distance_quantiles": quantiles,
    }


def _sentence(finding: Mapping[str, Any], space: str) -> str:
    nearer = finding["nearer"]
    finetuned, base = nearer[f"finetuned than {_REAL}"], nearer[f"base than {_REAL}"]
    verdict = "Copying is suspected" if finding["copying"] else "No sign of copying"
    shares = ", ".join(f"{name} {100 * s:.3g} %" for name, s in finding["not_authentic"].items())
    return (
        f"{verdict}: in {space}, samples lie nearer to the training images than held-out real "
        f"images do in so many of all pairs (50 % if alike): finetuned {_test(finetuned)}, base "
        f"{_test(base)}. Finetuned nearer than base: {_test(nearer['finetuned than base'])}. "
        f"Not authentic: {shares}."
    )


def _test(found: Mapping[str, float]) -> str:
    return f"{100 * found['share']:.3g} % (p = {found['p']:.2g})"


def _picture(
    drawn: Mapping[str, Tensor], found: Mapping[str, Nearest], train: ImageSet, k: int
) -> Image:
    """The first noises, and those whose finetuned samples lie nearest to a training image."""
    closest = found["finetuned"].distance[:, 0].argsort().cpu()
    bands = {
        "The first noises": torch.arange(len(closest))[:_ROWS],
        "Those whose finetuned samples lie nearest to a training image": closest[:_ROWS],
    }

    def of(name: str, rows: Tensor) -> list[tuple[str, np.ndarray]]:
        near = train[found[name].index.cpu()[rows].flatten()]
        return [
            (name, grid(drawn[name][rows].numpy(), 1)),
            ("nearest training images", grid(near.numpy(), k)),
        ]

    return sheet(
        [(title, [*of("base", rows), *of("finetuned", rows)]) for title, rows in bands.items()],
        zoom(train.shape[-1]),
    )
