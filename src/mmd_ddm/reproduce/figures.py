"""A figure of the paper: pictures in panels, one a network, and the text that goes with them."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmd_ddm.report.markdown import escape
from mmd_ddm.reproduce.tables import Layout, describe

__all__ = ["Panel", "draw_panels", "write_figure_text"]

Panel = tuple[str, np.ndarray]  # a title, and images of uint8, [n, c, h, w]


def draw_panels(rows: Sequence[tuple[str, Sequence[Panel]]], path: Path, columns: int) -> None:
    """Rows of panels of images, each image as it is: no smoothing.

    Args:
        rows: a name and its panels, as many in each row.
        path: of the PNG.
        columns: images side by side in a panel.
    """
    width = len(rows[0][1])
    n, _, h, w = rows[0][1][0][1].shape
    high = ceil(n / columns) * h / (columns * w)
    figure = Figure(figsize=(2.6 * width, (2.6 * high + 0.3) * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), width, squeeze=False)
    for axes_row, (name, panels) in zip(grid, rows, strict=True):
        for axes, (title, images) in zip(axes_row, panels, strict=True):
            sheet = _sheet(images, columns)
            axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(title, fontsize=8)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        axes_row[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=160)


def write_figure_text(layout: Layout, caption: str, folder: Path) -> None:
    """Write ``NAME.md``, which shows ``NAME.png``."""
    preset = layout.preset
    title = escape(preset.title)
    text = [f"## {title}", f"![{title}]({preset.name}.png)", caption]
    text += [describe(layout, part) for part in layout.parts]
    (folder / f"{preset.name}.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Images row by row on a white ground with a gap of one pixel; [H, W] or [H, W, 3]."""
    n, c, h, w = images.shape
    sheet = np.full((ceil(n / columns) * (h + 1) - 1, columns * (w + 1) - 1, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + 1), i % columns * (w + 1)
        sheet[top : top + h, left : left + w] = image.transpose(1, 2, 0)
    return sheet[..., 0] if c == 1 else sheet
