"""``mmd-ddm shootout``: the methods that train, at equal compute."""

from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Words, opt

__all__ = ["shootout"]

_PRESET = Path(__file__).parents[1] / "presets" / "shootout.toml"


def shootout(
    out: Annotated[Path, opt("Folder of rows, runs and table; repeat it to go on.")],
    config: Annotated[Path, opt("TOML file of chains and methods; default: all.")] = _PRESET,
    set_: Annotated[Words, opt("Any setting of it: seeds=1; repeatable.", "--set")] = None,
) -> None:
    """Train by every method at the same number of network passes, and judge all alike.

    Each tries the same rates with one seed, chosen by a space that is neither optimised nor the
    judge. OUT then holds shootout.md, rows.jsonl and the runs.

    Example: mmd-ddm shootout --set steps=[5] --set seeds=1 --out shootout
    """
    from mmd_ddm.jobs.shootout import Shootout
    from mmd_ddm.jobs.shootout import shootout as make
    from mmd_ddm.report.shootout import write_shootout
    from mmd_ddm.report.terminal import shown
    from mmd_ddm.settings import load

    plan = load(Shootout, config, set_ or [])
    found = make(plan, out, bars)
    for table in write_shootout(found.rows, plan.judge, plan.select, out):
        console.print(shown(table, gap=0))
    console.print(f"saved {out / 'shootout.md'}")
