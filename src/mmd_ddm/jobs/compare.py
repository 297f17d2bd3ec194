r"""Samplers, and finetuned runs, on one model in one table: what ``mmd-ddm bench`` runs.

Every row has the same images to be compared with and starts from the same noise. What a row draws
and scores is remembered, so that the same call, or one that asks for more, draws only what is
missing. How far each lies above the best of as many steps is a paired difference.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.measure import Entry, measure, over_seeds, protocol
from mmd_ddm.evaluation.paired import above_best
from mmd_ddm.evaluation.space import Space, describe
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import Model, load_model
from mmd_ddm.jobs.compare_rows import PUBLISHED, plan_entries
from mmd_ddm.jobs.origin import Origin, origins
from mmd_ddm.jobs.real_images import RealImages, choose_real
from mmd_ddm.jobs.results import FinetuneResult, Results
from mmd_ddm.jobs.roles import roles_to_runs
from mmd_ddm.maths.projections import Projections
from mmd_ddm.report import short_names
from mmd_ddm.report.bench import write_bench_chart, write_bench_tables
from mmd_ddm.runs.files import check_writable, write_json
from mmd_ddm.runs.fingerprint import key_of, weights_sha256
from mmd_ddm.runs.folder import RunLog
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["compare"]


def compare(
    model: str | Model,
    data: str | ImageSet | None = None,
    *,
    samplers: str | Sequence[str] = "all",
    steps: Sequence[int] = (5, 10, 15, 20),
    spacings: Sequence[str] = (PUBLISHED, "midpoint"),
    times: Sequence[float] = (),
    runs: Sequence[str | Path | Model | FinetuneResult] = (),
    n: int = 3000,
    seeds: int = 1,
    features: Sequence[str] = (),
    batch_size: int = 0,
    precision: str = "float32",
    device: str = "auto",
    read: ReadConfig | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> Results:
    """Draw with every sampler and judge what was drawn, in one table.

    Args:
        model: walked by every sampler; by name, or what `load` gave.
        data: real images, by name or loaded; by default those that the first run held out. Those
            that any run matched or selected by are left out.
        samplers: names, or ``all``, of which those that cannot walk are left out.
        steps: the numbers K.
        spacings: names; each gives rows of its own. With ``published``, the times that a sampler's
            authors took, samplers with orders walk all of them from 2 on, and tables show each
            sampler at its best.
        times: a custom list, walked as well.
        runs: finetuned models, each a row on its own chain; of several budgets one for each that
            is among the steps, if any is.
        n: images a row and seed.
        seeds: how many; more than one gives standard errors over them.
        features: spaces to judge in; by default EfficientNet-Lite0 and one for the colours.
        batch_size: images at once; 0 is what is fast.
        precision: float32 or bfloat16, for models that are named.
        device: where to compute, likewise.
        read: how real images that are named are read.
        out: a folder for ``bench.json``, its table and its chart; None writes nothing.
        progress: told what is done.

    Raises:
        ValueError: whatever cannot be: an unknown name, a run that is no finetuned model or draws
            other images than the base, times that no chain can have.
    """
    if n < 2:
        raise ValueError(f"-n must be at least 2; got {n}")
    if seeds < 1 or batch_size < 0:
        raise ValueError(
            f"--seeds must be at least 1 and --batch-size 0 or more; got {seeds} and {batch_size}"
        )
    folder = Path(out) if out else None
    if folder:
        check_writable(folder)
    base = load_model(model, device, precision)
    tuned = [_load(run, device, precision) for run in runs]
    names = [samplers] if isinstance(samplers, str) else samplers
    entries, left_out = plan_entries(base, tuned, names, spacings, steps, times)
    notes = [*base.denoiser.notes, *left_out]
    origin_of = origins([base, *tuned])
    real = choose_real(
        data, origin_of, base.denoiser.shape, read or ReadConfig(), progress, [base, *tuned]
    )
    data, spaces = real.images, _spaces(base, origin_of, real, features)
    settings = {
        "model": base.name, "data": data.source, "samples": n, "precision": precision,
        "features": [space.name for space in spaces],
    }  # fmt: skip
    inputs = _inputs(base, data, spaces)
    with RunLog(folder, "bench", settings, inputs) if folder else nullcontext():
        for note in notes:
            progress.say(note)
        rows = f"{len(entries) * seeds} rows of {n:,} images on {base.denoiser.device}"
        progress.say(f"{rows}; what was drawn before is remembered")
        record: dict[str, Any] = {
            "model": base.name,
            "protocol": {
                **_protocol(data, n, seeds, precision, base.denoiser.device),
                **real.protocol,
            },
            "spaces": describe(spaces, progress),
            "rows": [],
            "notes": notes,
        }
        _warm_up(entries, batch_size)
        networks = dict.fromkeys(entry.sampler.denoiser.network for entry in entries)
        weights = {network: weights_sha256(network) for network in networks}
        kids: list[dict[str, Projections]] = []
        with progress.bar("images", n * seeds * len(entries)) as bar:
            for entry in entries:
                tell = partial(
                    bar, note=f"{entry.name} {entry.chain.sampler}, {entry.chain.steps} steps"
                )
                found = over_seeds(
                    [
                        measure(entry, spaces, n, seed, tell, batch_size=batch_size)
                        for seed in range(seeds)
                    ]
                )
                kids.append(found.kid)
                row = {**found.row, "weights": weights[entry.sampler.denoiser.network]}
                record["rows"] = above_best([*record["rows"], row], kids, spaces[0].name)
                if PUBLISHED in spacings:
                    record["rows"] = _best_chains(record["rows"], spaces[0].name)
                if folder:
                    write_json(folder / "bench.json", record)
                    write_bench_tables(record, folder)
        if folder:
            write_bench_chart(record, folder / "bench.png")
    return Results(record, folder)


def _load(run: str | Path | Model | FinetuneResult, device: str, precision: str) -> Model:
    if isinstance(run, FinetuneResult):
        return run.model
    return load_model(str(run) if isinstance(run, Path) else run, device, precision)


def _best_chains(rows: list[dict[str, Any]], space: str) -> list[dict[str, Any]]:
    """The rows, each knowing whether tables show it: a sampler is shown at its best.

    Times that a person lists are shown whatever they are worth.
    """

    def chain(row: dict[str, Any]) -> tuple[Any, ...]:
        listed = row["spacing"] == "custom"
        return row["name"], row["model"], row["sampler"], row["steps"], listed

    best: dict[tuple[Any, ...], int] = {}
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["spaces"][space]["kid"]):
        best.setdefault(chain(rows[i]), i)
    return [{**row, "shown": best[chain(row)] == i} for i, row in enumerate(rows)]


def _spaces(
    base: Model, runs: Mapping[str, Origin | None], real: RealImages, features: Sequence[str]
) -> list[Space]:
    data = real.images
    if len(data) < 4:
        raise ValueError(f"{data.source} holds {len(data)} images; at least 4 are needed")
    channels, device = base.denoiser.shape[0], base.denoiser.device
    names = list(dict.fromkeys(features)) or [
        "efficientnet-lite0",
        "encoder" if channels == 1 else "pixels",
    ]
    phis = {name: make_features(name, channels).to(device) for name in names}
    roles = roles_to_runs(phis, runs, channels, otherwise=real.otherwise)
    return [
        Space(short, roles[name], phis[name], data, device=device)
        for name, short in short_names(names).items()
    ]


def _inputs(base: Model, data: ImageSet, spaces: Sequence[Space]) -> dict[str, str]:
    return {
        "model_sha256": base.denoiser.sha256,
        "data_sha256": data.sha256,
        "features_sha256": key_of([space.phi.sha256 for space in spaces]),
    }


def _protocol(
    data: ImageSet, n: int, seeds: int, precision: str, device: torch.device
) -> dict[str, Any]:
    half = len(data) // 2
    return {
        **protocol(data, n, 0),
        "seeds": seeds,
        "standard_error": "first-order for KID" + ", over seeds otherwise" * (seeds > 1),
        "floor": f"two random halves of the real images, {len(data) - half} and {half}",
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


@torch.no_grad()
def _warm_up(entries: Sequence[Entry], batch_size: int) -> None:
    """One untimed call of every network, so that the first row's speed is that of the others."""
    for denoiser in dict.fromkeys(entry.sampler.denoiser for entry in entries):
        if denoiser.device.type == "cuda":
            x_t = torch.zeros((batch_size or 512, *denoiser.latent_shape), device=denoiser.device)
            conditions = denoiser.conditions(range(len(x_t)))
            denoiser(x_t, denoiser.schedule.bounds[1], conditions)
