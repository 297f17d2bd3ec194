"""The comparison of samplers from end to end: plan, draw and judge what is missing, write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table

from mmd_ddm.bank import cached_features
from mmd_ddm.bench import SEED_STRIDE, Entry, Ledger, over_seeds, plan
from mmd_ddm.build import build_device, load_model
from mmd_ddm.cli.console import console, progress_bar, say_skipped
from mmd_ddm.cli.judging import protocol
from mmd_ddm.data import ImageSet, load_images
from mmd_ddm.evaluate import Space, draw, judge, result_row
from mmd_ddm.features import make_features
from mmd_ddm.report import short_names
from mmd_ddm.report.bench import bench_lines, write_bench_chart, write_bench_tables
from mmd_ddm.rng import generator
from mmd_ddm.runlog import RunLog, read_json, write_json

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


def run_bench(request: Request, out: Path) -> dict[str, Any]:
    """Fill the table in ``out`` and print it."""
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
    say_skipped(images)
    spaces, about = _spaces(request, images, model.denoiser.shape[0], device)
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
        console.print(note)
    console.print(
        f"{len(entries)} rows of {request.samples:,} images on {device}; "
        f"{len(entries) - len(missing)} are done"
    )
    _warm_up(missing, request.batch_size)
    with progress_bar("images", request.samples * len(missing)) as bar:
        for entry in missing:
            ledger.add(_measure(entry, request, spaces, bar))
            write()
    write()
    write_bench_chart(results, out / "bench.png")
    _print(results)
    console.print(f"saved {out}: bench.md, bench.csv, bench.json, bench.png")
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
    request: Request, images: ImageSet, channels: int, device: torch.device
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
    with progress_bar("features of the data", len(names)) as bar:
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


def _print(results: dict[str, Any]) -> None:
    """The table as 80 columns hold it: spaces by number, FD without its error.

    The spacing is a column only where the base has several.
    """
    (_, header), *lines = bench_lines(results)
    several = len({row["spacing"] for row in results["rows"] if row["name"] == "base"}) > 1
    kept = [i for i, name in enumerate(header) if several or name != "spacing"]
    spaces = ", ".join(f"{k} {space}" for k, space in enumerate(results["spaces"], 1))
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        title=f"KID in thousandths, and FD, in {spaces}",
    )
    named = max(len(row["sampler"]) for row in results["rows"])
    for i in kept:
        space, _, metric = header[i].removesuffix(" x1000").rpartition(" ")
        number = f" {1 + list(results['spaces']).index(space)}" if space else ""
        table.add_column(
            metric + number,
            width=None if i else named,  # a run, whose name may be of any length, is folded
            justify="left" if i < 2 else "right",
            no_wrap=bool(i) and metric != "KID",
            overflow="ellipsis" if i else "fold",
        )
    bare = {i for i in kept if header[i].endswith(" FD")}
    for (strong, cells), (_, after) in pairwise([*lines, lines[-1]]):
        table.add_row(
            *(cells[i].partition(" ±")[0] if i in bare else cells[i] for i in kept),
            style="bold" if strong else None,
            end_section=cells[2] != after[2],
        )
    console.print(table)
