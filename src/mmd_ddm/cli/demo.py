"""``mmd-ddm demo``: the main job on the bundled model and data."""

from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, chosen_trackers, console
from mmd_ddm.cli.options import ForceNewRun, Words, opt

__all__ = ["demo"]


def demo(
    out: Annotated[Path, opt("Folder of the run.")] = Path("demo-run"),
    set_: Annotated[Words, opt("Any setting of finetune: iterations=10", "--set")] = None,
    force_new_run: ForceNewRun = False,
) -> None:
    """Finetune the bundled Fashion-MNIST model for 5 steps, in minutes on two CPU cores.

    Example: mmd-ddm demo --out demo-run
    """
    from mmd_ddm.config import FinetuneConfig
    from mmd_ddm.jobs.finetune import run
    from mmd_ddm.jobs.recipe import complete
    from mmd_ddm.report.terminal import shown_results
    from mmd_ddm.runs.folder import free_folder
    from mmd_ddm.settings import load, to_mapping

    preset = Path(__file__).parents[1] / "presets" / "demo.toml"
    chosen = load(FinetuneConfig, preset, set_ or [], complete=complete)
    if force_new_run:
        out = free_folder(out, "finetune", to_mapping(chosen))
    console.print(
        shown_results(run(chosen, out, trackers=chosen_trackers(None), progress=bars).record)
    )
    console.print(f"look at {out / 'pairs.png'} and open {out / 'report.html'} in a browser")
