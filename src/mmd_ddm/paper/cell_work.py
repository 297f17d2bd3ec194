"""The cells of a reproduction: finetuned where they must be, drawn, judged once, kept.

A finished cell is a folder with ``cell.json`` (its identity, its row of results, the spaces with
their floors), ``images.npy`` (its first images) and, where it was finetuned, ``run/``.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.judge import Space
from mmd_ddm.evaluation.metrics import METRICS
from mmd_ddm.features.registry import FEATURES, make_features
from mmd_ddm.jobs.build import (
    Model,
    build_data,
    build_device,
    build_sampler,
    load_model,
    resolve_times,
)
from mmd_ddm.jobs.compare import SEED_STRIDE
from mmd_ddm.jobs.finetune import train_run
from mmd_ddm.jobs.judging import build_spaces, evaluate_chain
from mmd_ddm.paper import Cell, spatial, with_classes
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import read_events, read_json, write_json
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["CellWork", "Unwalkable", "finished"]

_KEPT_IMAGES = 64
_FIRST = ("fd", "kid", "precision-recall")  # in the space that stands for Inception


class Unwalkable(ValueError):
    """A chain that its sampler cannot walk."""


@dataclass(frozen=True)
class _Bench:
    """What cells of one experiment have in common, loaded once."""

    model: Model
    reference: ImageSet
    real: ImageSet
    spaces: list[Space]
    about: dict[str, Any]
    inputs: dict[str, str]


def finished(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The record of a cell, if it is finished."""
    path = folder / cell.name / "cell.json"
    return read_json(path) if path.is_file() else None


class CellWork:
    """Makes cells.

    Args:
        folder: that holds them.
        progress: told what is done.
    """

    def __init__(self, folder: Path, progress: Progress = silent) -> None:
        self.folder = folder
        self.progress = progress
        self._key: tuple | None = None
        self._bench: _Bench | None = None

    def make(self, cell: Cell) -> dict[str, Any]:
        """The record of a cell, made if it is not there.

        Raises:
            Unwalkable: a chain that its sampler cannot walk.
            ValueError: whatever the finetuning refuses.
        """
        record = finished(cell, self.folder)
        if record is not None:
            return record
        bench, config, out = self.bench(cell), cell.config, self.folder / cell.name
        chain = resolve_times(config.chain, bench.model.denoiser.schedule)
        try:
            build_sampler(chain, bench.model.denoiser)
        except ValueError as error:
            raise Unwalkable(str(error)) from error
        began = time.monotonic()
        model = self.model(cell)
        trained = time.monotonic()
        row, pixels = evaluate_chain(
            "finetuned" if cell.trained else "base",
            model,
            chain,
            config.judge_samples,
            config.seed * SEED_STRIDE,
            bench.spaces,
            self.progress,
        )
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / "images.npy", pixels[:_KEPT_IMAGES].numpy())
        record = {
            "identity": cell.identity,
            "inputs": bench.inputs,
            "weights_sha256": weights_sha256(model.denoiser.network),
            "spaces": bench.about,
            "row": row,
            "seconds": {
                "train": round(trained - began, 1) if cell.trained else 0,
                "judge": round(time.monotonic() - trained, 1),
            },
        }
        write_json(out / "cell.json", record)
        return record

    def model(self, cell: Cell) -> Model:
        """The network of a cell, finetuned if that is not done."""
        bench, config, run = self.bench(cell), cell.config, self.folder / cell.name / "run"
        if not cell.trained:
            return bench.model
        if not any(event["event"] == "done" for event in read_events(run)):
            train_run(config, run, self.progress)
        return load_model(str(run), bench.model.denoiser.device, config.precision)

    def bench(self, cell: Cell) -> _Bench:
        """Model, images and spaces of the cell's experiment; those of one are kept at a time."""
        key = _key(cell)
        if self._bench is None or key != self._key:
            self._bench, self._key = _load(cell, self.progress), key
        return self._bench

    def check(self, cell: Cell, record: dict[str, Any]) -> None:
        """Compare a finished cell with the data and weights that are loaded, if its own are.

        Raises:
            ValueError: it was made with others.
        """
        if self._bench and self._key == _key(cell) and record["inputs"] != self._bench.inputs:
            raise ValueError(
                f"{self.folder / cell.name} was made with other data or weights: put them back, "
                "or give a new folder"
            )


def _key(cell: Cell) -> tuple:
    """What cells of one bench have in common; a seed decides which fifth is held out."""
    c = cell.config
    return (
        c.model, c.data, c.heldout, c.resize, c.precision, c.device, c.judge_samples, cell.real,
        cell.spaces, 0 if c.heldout else c.seed,
    )  # fmt: skip


def _load(cell: Cell, progress: Progress) -> _Bench:
    config = cell.config
    device = build_device(config.device)
    model = load_model(config.model, device, config.precision)
    shape = model.denoiser.shape
    data = build_data(config, shape)
    names = [*cell.spaces, *(name for name in (spatial(cell),) if name in FEATURES)]
    phis = {name: make_features(name, shape[0]).to(device) for name in names}
    real, others = data.heldout, data.reference
    if cell.real == "matched":
        real, others = others, real
    roles = dict.fromkeys(phis, "held-out") | dict.fromkeys(cell.spaces[:2], "optimised")
    spaces = build_spaces(phis, roles, others, real, config.judge_samples, device, progress)
    spaces[0] = replace(spaces[0], chosen=_FIRST)
    at = names.index(with_classes(cell))
    if METRICS["is"].applies(spaces[at].phi):
        spaces[at] = replace(spaces[at], chosen=(*spaces[at].chosen, "is"))
    inputs = {"model_sha256": weights_sha256(model.denoiser.network), **data.hashes}
    about = {space.name: space.describe() for space in spaces}
    return _Bench(model, data.reference, real, spaces, about, inputs)
