"""``mmd-ddm interpolate``: from one noise to another, drawn with base and finetuned model."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import bars, console
from mmd_ddm.config import check_seed

__all__ = ["interpolate"]


def interpolate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Finished run of finetune or demo.")],
    n: Annotated[int, typer.Option("-n", help="Pairs of noises.")] = 4,
    frames: Annotated[int, typer.Option(help="Images from one noise to the other.")] = 9,
    out: Annotated[Path | None, typer.Option(help="Folder; default: RUN/interpolation.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first noise; the next has SEED + 1.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Interpolate between noises (Eq. 8), and draw with base and finetuned model from the same.

    OUT then holds interpolation.png (the paper's Figs. 9 and 10); a report written afterwards
    shows it. Samplers that add noise add the same to all images of a row.

    Example: mmd-ddm interpolate run -n 4 --frames 9
    """
    if n < 1 or frames < 2:
        raise ValueError(f"-n must be at least 1 and --frames 2; got {n} and {frames}")
    check_seed(seed)

    from mmd_ddm.evaluation.draw import draw_arc
    from mmd_ddm.jobs.build import build_device
    from mmd_ddm.jobs.couple import load_couple
    from mmd_ddm.report.sheets import grid, sheet, zoom
    from mmd_ddm.runs.folder import RunLog, write_json

    couple = load_couple(run, build_device(device))
    folder, settings = out or run / "interpolation", {"n": n, "frames": frames, "seed": seed}
    RunLog(folder, "interpolate", settings, couple.hashes)
    samplers = couple.samplers()
    bands = []
    with bars.bar("interpolating", 2 * n) as bar:
        for first in range(seed, seed + 2 * n, 2):
            for name, sampler in samplers.items():
                bands.append(
                    ("", [(name, grid(draw_arc(sampler, first, frames).numpy(), frames))])
                )
                bar(advance=1, note=name)
    steps = f"{len(couple.chain.times)} {couple.chain.sampler} steps"
    sentence = (
        f"Spherical interpolation (Eq. 8) between {n} pairs of noises, {frames} images each, in "
        f"{steps}; of each pair the base above, the finetuned model below."
    )
    sheet(bands, zoom(couple.shape[-1])).save(folder / "interpolation.png")
    write_json(folder / "interpolation.json", {"sentence": sentence, "chain": couple.chain.times})
    console.print(sentence)
    console.print(f"saved {folder}; mmd-ddm report {run} --out report.html shows it")
