"""The comparison of samplers from end to end: plan, draw and judge what is missing, write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.data.images import ImageSet, load_images, say_skipped
from mmd_ddm.evaluation.draw import draw
from mmd_ddm.evaluation.judge import Space, judge, result_row
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_device, load_model
from mmd_ddm.jobs.compare import SEED_STRIDE, Entry, Ledger, over_seeds, plan
from mmd_ddm.jobs.judging import protocol
from mmd_ddm.maths.random import generator
from mmd_ddm.report import short_names
from mmd_ddm.report.bench import write_bench_chart, write_bench_tables
from mmd_ddm.runs.folder import RunLog, read_json, write_json
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["Request", "run_bench"]


@dataclass(frozen=True)
class Request:
    """What was asked for: the options of the verb, parsed."""

    model: str
    data: str
    steps: Sequence[int]
    samplers: Sequence[str]
    spacings: Sequence[str]
    times: Sequence[float]
    runs: Sequence[str]
    samples: int
    seeds: int
    features: Sequence[str]
    batch_size: int
    precision: str
    device: str
    resize: bool


def run_bench(request: Request, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Fill the table in ``out``."""
    _check(request)
    device = build_device(request.device)
    model, *runs = (
        load_model(name, device, request.precision) for name in (request.model, *request.runs)
    )
    entries, notes = plan(
        model,
        runs,
        request.samplers,
        request.spacings,
        request.steps,
        request.seeds,
        request.times,
    )
    images = load_images(request.data, model.denoiser.shape, resize=request.resize)
    say_skipped(progress, images)
    spaces, about = _spaces(request, images, model.denoiser.shape[0], device, progress)
    settings = {
        "data": request.data,
        "data_sha256": images.sha256,
        "samples": request.samples,
        "precision": request.precision,
        "features": {space.name: space.phi.sha256[:12] for space in spaces},
    }
    RunLog(out, "bench", settings)
    ledger = Ledger(out / "rows.jsonl")
    results: dict[str, Any] = {
        "model": model.name,
        "protocol": _protocol(request, images, device),
        "spaces": about,
        "rows": [],
        "notes": notes,
    }

    def write() -> None:
        results["rows"] = over_seeds(ledger.rows(entries))
        write_json(out / "bench.json", results)
        write_bench_tables(results, out)

    missing = ledger.missing(entries)
    for note in notes:
        progress.say(note)
    progress.say(
        f"{len(entries)} rows of {request.samples:,} images on {device}; "
        f"{len(entries) - len(missing)} are done"
    )
    _warm_up(missing, request.batch_size)
    with progress.bar("images", request.samples * len(missing)) as bar:
        for entry in missing:
            ledger.add(_measure(entry, request, spaces, bar))
            write()
    write()
    write_bench_chart(results, out / "bench.png")
    return results


def _check(request: Request) -> None:
    if not 2 <= request.samples <= SEED_STRIDE:
        raise ValueError(f"-n must be from 2 to {SEED_STRIDE:,}; got {request.samples}")
    if request.seeds < 1 or request.batch_size < 0:
        raise ValueError(
            f"--seeds must be at least 1 and --batch-size 0 or more; got {request.seeds} and "
            f"{request.batch_size}"
        )


def _spaces(
    request: Request, images: ImageSet, channels: int, device: torch.device, progress: Progress
) -> tuple[list[Space], dict[str, Any]]:
    """The spaces with all real images, and what the table says of each, with its floor."""
    if len(images) < 4:
        raise ValueError(f"{request.data} holds {len(images)} images; at least 4 are needed")
    names = list(dict.fromkeys(request.features)) or [
        "efficientnet-lite0",
        "encoder" if channels == 1 else "pixels",
    ]
    roles = _known_roles(request.runs)
    phis = [make_features(name, channels).to(device) for name in names]
    order = torch.randperm(len(images), generator=generator(0, 0, 0, "floor"))
    spaces, about = [], {}
    with progress.bar("features of the data", len(names)) as bar:
        for name, phi in zip(short_names(names).values(), phis, strict=True):
            real = cached_features(images, phi, device=device)
            if device.type == "cuda":  # others have no float64, or are no faster at it
                real = real.to(device)
            first, second = real[order.to(real.device)].tensor_split(2)
            role = roles.get(phi.sha256, roles["other"])
            spaces.append(Space(name, role, phi, real, real))
            about[name] = Space(name, role, phi, first, second).describe()
            bar(advance=1, note=name)
    return spaces, about


def _known_roles(runs: Sequence[str]) -> dict[str, str]:
    """What the spaces were to the runs, by the hash of their weights.

    A space that any run optimised is no judge of the table, whatever it was to the others.
    """
    roles = {"other": "held-out"}
    for run in runs:
        record = Path(run) / "results.json"
        if not record.is_file():
            roles["other"] = "not known"  # a model without its run says not what it was made by
            continue
        for space in read_json(record)["spaces"].values():
            if space["role"] != "held-out" and roles.get(space["sha256"]) != "optimised":
                roles[space["sha256"]] = space["role"]
    return roles


def _protocol(request: Request, images: ImageSet, device: torch.device) -> dict[str, Any]:
    half = len(images) // 2
    errors = "over seeds" if request.seeds > 1 else "of KID, first-order"
    return {
        **protocol(images, request.samples, 0),
        "seeds": f"{request.seeds}; image i of seed s has the noise of {SEED_STRIDE} s + i",
        "standard_error": errors,
        "floor": f"two random halves of the real images, {len(images) - half} and {half}",
        "precision": request.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


@torch.no_grad()
def _warm_up(entries: Sequence[Entry], batch_size: int) -> None:
    """One untimed call of every network, so that the first row's speed is that of the others."""
    for denoiser in dict.fromkeys(entry.model.denoiser for entry in entries):
        if denoiser.device.type == "cuda":
            x_t = torch.zeros((batch_size or 512, *denoiser.shape), device=denoiser.device)
            denoiser(x_t, 0.0)


def _measure(
    entry: Entry, request: Request, spaces: Sequence[Space], bar: Callable[..., None]
) -> dict[str, Any]:
    """Draw and judge one row."""
    note = f"{entry.name} {entry.chain.sampler}, {entry.chain.steps} steps"
    pixels, speed = draw(
        entry.sampler,
        request.samples,
        seed=entry.seed * SEED_STRIDE,
        batch_size=request.batch_size,
        on_batch=lambda k: bar(advance=k, note=note),
    )
    metrics = judge(pixels, spaces, entry.model.denoiser.device)
    row = result_row(entry.name, entry.model.name, entry.chain, entry.sampler, speed, metrics)
    return {**row, **entry.identity}
