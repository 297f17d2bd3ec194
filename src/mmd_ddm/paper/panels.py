"""The pictures of a figure: what each kind of preset shows of its cells, a panel a network."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np

from mmd_ddm.evaluation.metrics.copies import nearest
from mmd_ddm.features.bank import cached_features, extract
from mmd_ddm.jobs.build import build_sampler
from mmd_ddm.paper.cell_work import CellWork
from mmd_ddm.paper.cells import Cell
from mmd_ddm.paper.tables import Layout
from mmd_ddm.report.sheets import grid, save_sheet, sheet, zoom
from mmd_ddm.runs.progress import Progress
from mmd_ddm.samplers.draw import draw_arc

__all__ = ["draw_figure"]

_SAMPLES, _COLUMNS = 16, 4
_ROWS, _NEIGHBORS = 6, 4
_PAIRS, _FRAMES = 3, 9
Bands = list[tuple[str, list[tuple[str, np.ndarray]]]]


def draw_figure(layout: Layout, work: CellWork, out: Path, progress: Progress) -> str:
    """Write ``NAME.png``; what it shows, in a sentence."""
    make, caption = _KINDS[layout.preset.kind]
    bands: Bands = []
    for part, k in product(layout.parts, layout.steps):
        cells = {
            label: cell
            for (where, label, steps, seed), cell in layout.cells.items()
            if (where, steps, seed) == (part, k, 0) and cell.name in layout.records
        }
        bands += [(f"{k} steps{head}", row) for head, row in make(cells, work, progress)]
    width = work.bench(next(iter(layout.cells.values()))).spaces[0].real.shape[-1]
    save_sheet(sheet(bands, zoom(width)), out / f"{layout.preset.name}.png")
    return caption


def _samples(cells: dict[str, Cell], work: CellWork, progress: Progress) -> Bands:
    panels = [
        (label, grid(work.images(cell)[:_SAMPLES].numpy(), _COLUMNS))
        for label, cell in cells.items()
    ]
    real = work.bench(next(iter(cells.values()))).spaces[0].real.subset(_SAMPLES)
    return [("", [*panels, ("real images", grid(real.pixels.numpy(), _COLUMNS))])]


def _neighbors(cells: dict[str, Cell], work: CellWork, progress: Progress) -> Bands:
    panels = []
    for label, cell in cells.items():
        bench, images = work.bench(cell), work.images(cell)[:_ROWS]
        phi, device = bench.spaces[1].phi, bench.model.denoiser.device
        bank = cached_features(bench.data.matched, phi, device=device).to(device)
        found = nearest(extract(images, phi, device=device).to(device), bank, _NEIGHBORS)
        near = bench.data.matched[found.index.cpu().flatten()]
        panels += [
            (label, grid(images.numpy(), 1)),
            ("nearest training images", grid(near.numpy(), _NEIGHBORS)),
        ]
    return [("", panels)]


def _interpolation(cells: dict[str, Cell], work: CellWork, progress: Progress) -> Bands:
    bands: Bands = []
    with progress.bar("interpolating", _PAIRS * len(cells)) as bar:
        samplers = {
            label: build_sampler(cell.config.chain, work.model(cell).denoiser)
            for label, cell in cells.items()
        }
        for pair in range(_PAIRS):
            for label, sampler in samplers.items():
                images = draw_arc(sampler, 2 * pair, _FRAMES)
                bands.append((f", {label}", [("", grid(images.numpy(), _FRAMES))]))
                bar(advance=1)
    return bands


_KINDS: dict[str, tuple[Callable[[dict[str, Cell], CellWork, Progress], Bands], str]] = {
    "samples": (_samples, "The first images of the seed, none picked; the same noise in all."),
    "neighbors": (
        _neighbors,
        "The first images of the seed, none picked; beside each the nearest training images, in "
        "the space that stands for CLIP.",
    ),
    "interpolation": (
        _interpolation,
        "From one noise to another along the arc between them (Eq. 8); the same noises in all.",
    ),
}
