"""The cells of a reproduction: finetuned where they must be, drawn, judged once, kept.

A finished cell is ``cells/NAME.json`` (its identity, its row of results, the spaces with their
floors) and, where it was finetuned, the run folder ``cells/NAME``.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mmd_ddm.data.images import Split
from mmd_ddm.evaluation.measure import Entry, drawn, measure
from mmd_ddm.evaluation.metrics.registry import METRICS
from mmd_ddm.evaluation.space import Space, describe
from mmd_ddm.features.kinship import shared_network
from mmd_ddm.features.registry import FEATURES, make_features
from mmd_ddm.jobs.build import (
    Model,
    build_data,
    build_device,
    build_sampler,
    load_model,
    resolve_chain,
    say_notes,
)
from mmd_ddm.jobs.train import train
from mmd_ddm.paper.cells import Cell, spatial, with_classes
from mmd_ddm.runs.files import check_space
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import read_events
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.runs.store import remembered
from mmd_ddm.training.state import disk_bytes

__all__ = ["CellWork", "Unwalkable"]

_FIRST = ("fd", "kid", "precision-recall")  # in the space that stands for Inception


class Unwalkable(ValueError):
    """A chain that its sampler cannot walk."""


@dataclass(frozen=True)
class _Bench:
    """What cells of one experiment have in common, loaded once."""

    model: Model
    data: Split
    spaces: list[Space]
    about: dict[str, Any]
    inputs: dict[str, str]


class CellWork:
    """Makes cells.

    Args:
        out: the folder of the reproduction.
        progress: told what is done.
    """

    def __init__(self, out: Path, progress: Progress = silent) -> None:
        self.out = out
        self.progress = progress
        self._key: tuple | None = None
        self._bench: _Bench | None = None

    def make(self, cell: Cell) -> dict[str, Any]:
        """The record of a cell, made if it is not there.

        Raises:
            Unwalkable: a chain that its sampler cannot walk.
            ValueError: whatever the finetuning refuses.
        """
        return remembered("cells", cell.name, lambda: self._made(cell), root=self.out)

    def _made(self, cell: Cell) -> dict[str, Any]:
        bench, config = self.bench(cell), cell.config
        chain = resolve_chain(config.chain, bench.model.denoiser)
        try:
            build_sampler(chain, bench.model.denoiser)
        except ValueError as error:
            raise Unwalkable(str(error)) from error
        began = time.monotonic()
        entry = self._entry(cell)
        trained = time.monotonic()
        n = config.judge_samples
        with self.progress.bar(f"{entry.name}, {len(chain.times)} steps", n) as bar:
            row = measure(entry, bench.spaces, n, config.seed, bar).row
        return {
            "identity": cell.identity,
            "inputs": bench.inputs,
            "weights_sha256": weights_sha256(entry.sampler.denoiser.network),
            "spaces": bench.about,
            "row": row,
            "seconds": {
                "train": round(trained - began, 1) if cell.trained else 0,
                "judge": round(time.monotonic() - trained, 1),
            },
        }

    def check_ahead(self, cells: Sequence[Cell]) -> None:
        """Load what each experiment of these cells needs, before the first is begun.

        Raises:
            ValueError: a model, images or a space that cannot be had, or a disk that is too full.
        """
        needed = 0
        # A seed at most decides which fifth is held out.
        for of in {_key(cell)[:-1]: cell for cell in cells}.values():
            same = [cell for cell in cells if _key(cell)[:-1] == _key(of)[:-1] and cell.trained]
            network = self.bench(of).model.denoiser.network
            needed += disk_bytes(network, of.config.keep, len(same))
        check_space(self.out, needed)

    def images(self, cell: Cell) -> Tensor:
        """What the cell drew: uint8, [n, c, h, w]."""
        config, entry = cell.config, self._entry(cell)
        n = config.judge_samples
        with self.progress.bar(f"{entry.name}, {len(entry.chain.times)} steps", n) as bar:
            return drawn(entry, n, config.seed, bar)[0].pixels

    def model(self, cell: Cell) -> Model:
        """The network of a cell, finetuned if that is not done."""
        base, config, run = self.bench(cell).model, cell.config, self.out / "cells" / cell.name
        if not cell.trained:
            return base
        if not any(event["event"] == "done" for event in read_events(run)):
            train(config, run, self.progress)
        return load_model(str(run), base.denoiser.device, config.precision)

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
                f"{self.out / 'cells' / cell.name} was made with other data or weights: put them "
                "back, or give a new folder"
            )

    def _entry(self, cell: Cell) -> Entry:
        model = self.model(cell)
        chain = resolve_chain(cell.config.chain, model.denoiser)
        name = "finetuned" if cell.trained else "base"
        return Entry(name, model.name, chain, build_sampler(chain, model.denoiser))


def _key(cell: Cell) -> tuple:
    """What cells of one bench have in common; a seed decides which fifth is held out."""
    c = cell.config
    return (
        c.model, c.data, c.heldout, c.resize, c.background, c.skip_damaged, c.precision, c.device,
        c.judge_samples, cell.real, cell.spaces, 0 if c.heldout else c.seed,
    )  # fmt: skip


def _load(cell: Cell, progress: Progress) -> _Bench:
    config = cell.config
    device = build_device(config.device)
    model = load_model(config.model, device, config.precision)
    say_notes(model.denoiser, progress)
    channels = model.denoiser.shape[0]
    data = build_data(config, model.denoiser.shape, labels=bool(model.denoiser.classes))
    names = [*cell.spaces, *(name for name in (spatial(cell),) if name in FEATURES)]
    real, others = data.heldout, data.matched
    if cell.real == "matched":
        real, others = others, real
    other = others.subset(config.judge_samples)
    phis = {name: make_features(name, channels).to(device) for name in names}
    matched = [phis[name] for name in cell.spaces[:2]]
    spaces = []
    for name, phi in phis.items():
        role = "optimised" if any(shared_network(phi, its) for its in matched) else "held-out"
        spaces.append(Space(name, role, phi, real, other, device=device))
    spaces[0] = replace(spaces[0], metrics=_FIRST)
    at = names.index(with_classes(cell))
    if METRICS["is"].applies(spaces[at].phi):
        spaces[at] = replace(spaces[at], metrics=(*spaces[at].metrics, "is"))
    inputs = {"model_sha256": model.denoiser.sha256, **data.hashes}
    inputs |= {f"{name} sha256": phi.sha256 for name, phi in phis.items()}
    return _Bench(model, data, spaces, describe(spaces, progress), inputs)
