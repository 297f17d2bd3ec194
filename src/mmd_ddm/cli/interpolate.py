"""``mmd-ddm interpolate``: from one noise to another, drawn with base and finetuned model."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import console, progress_bar
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

    import torch

    from mmd_ddm.build import build_device
    from mmd_ddm.cli.couple import load_couple
    from mmd_ddm.images import grid, to_uint8
    from mmd_ddm.interpolation import slerp
    from mmd_ddm.rng import sample_noise
    from mmd_ddm.runlog import RunLog, write_json
    from mmd_ddm.sheets import sheet, zoom

    couple = load_couple(run, build_device(device))
    folder, settings = out or run / "interpolation", {"n": n, "frames": frames, "seed": seed}
    RunLog(folder, "interpolate", settings, couple.hashes)
    samplers = couple.samplers()
    bands = []
    with progress_bar("interpolating", 2 * n) as bar, torch.no_grad():
        for first in range(seed, seed + 2 * n, 2):
            rows = []
            for name, sampler in samplers.items():
                noise = sample_noise((first, first + 1), couple.shape, sampler.draws)
                noise = noise.to(sampler.denoiser.device)
                x_T = slerp(noise[0, 0], noise[0, 1], frames)
                added = noise[1:, :1].expand(-1, frames, -1, -1, -1)
                images = to_uint8(sampler(x_T, added if sampler.stochastic else None)).cpu()
                rows.append((name, grid(images, frames)))
                bar(advance=1, note=name)
            bands += [("", [row]) for row in rows]
    steps = f"{len(couple.chain.times)} {couple.chain.sampler} steps"
    sentence = (
        f"Spherical interpolation (Eq. 8) between {n} pairs of noises, {frames} images each, in "
        f"{steps}; of each pair the base above, the finetuned model below."
    )
    sheet(bands, zoom(couple.shape[-1])).save(folder / "interpolation.png")
    write_json(folder / "interpolation.json", {"sentence": sentence, "chain": couple.chain.times})
    console.print(sentence)
    console.print(f"saved {folder}; mmd-ddm report {run} --out report.html shows it")
