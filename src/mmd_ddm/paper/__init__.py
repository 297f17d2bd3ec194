"""The paper's tables and figures as presets, and the cells that they are made of.

A *preset* (``presets/paper``) lays out one table or figure: rows, numbers of steps, metrics. An
*experiment* (``presets/experiments``) says what the words in it mean for one data set: network,
images, settings, and what the released code does besides. Both together name *cells*: one chain
of one network, finetuned or not, judged once. A cell is known by all that decides its numbers, so
that tables share them. No torch here.
"""

__all__: list[str] = []
