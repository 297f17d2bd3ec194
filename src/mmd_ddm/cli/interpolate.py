"""``mmd-ddm interpolate``: from one noise to another, drawn with base and finetuned model."""

from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, Run, opt

__all__ = ["interpolate"]


def interpolate(
    run: Run,
    n: Annotated[int, opt("Pairs of noises.", "-n")] = 4,
    frames: Annotated[int, opt("Images from one noise to the other.")] = 9,
    out: Annotated[Path | None, opt("Folder; default: RUN/interpolation.")] = None,
    seed: Annotated[int, opt("Of the first noise; the next has SEED + 1.")] = 0,
    device: Device = "auto",
) -> None:
    """Interpolate between noises (Eq. 8), and draw with base and finetuned model from the same.

    OUT then holds interpolation.png (the paper's Figs. 9 and 10); a report written afterwards
    shows it. Samplers that add noise add the same to all images of a row.

    Example: mmd-ddm interpolate run -n 4 --frames 9
    """
    from mmd_ddm.jobs.interpolate import interpolate as draw

    found = draw(run, n=n, frames=frames, out=out, seed=seed, device=device, progress=bars)
    console.print(found.record["sentence"])
    console.print(f"saved {found.folder}; mmd-ddm report {run} --out report.html shows it")
