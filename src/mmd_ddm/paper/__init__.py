"""The paper's tables and figures as presets, and the cells that they are made of.

A *preset* (``presets/paper``) lays out one table or figure: rows, numbers of steps, metrics. An
*experiment* (``presets/experiments``) says what the words in it mean for one data set: network,
images, settings, and what the released code does besides. Both together name *cells*: one chain
of one network, finetuned or not, judged once. A cell is known by all that decides its numbers, so
that tables share them. No torch here.
"""

from mmd_ddm.paper.cells import Cell, Choice, lay_out, minutes, spatial, with_classes
from mmd_ddm.paper.presets import (
    Experiment,
    Preset,
    choose,
    load_experiment,
    load_preset,
    preset_names,
)
from mmd_ddm.paper.tables import Layout, write_figure_text, write_index, write_table

__all__ = [
    "Cell",
    "Choice",
    "Experiment",
    "Layout",
    "Preset",
    "choose",
    "lay_out",
    "load_experiment",
    "load_preset",
    "minutes",
    "preset_names",
    "spatial",
    "with_classes",
    "write_figure_text",
    "write_index",
    "write_table",
]
