"""From one noise to another, with base and finetuned model: what ``mmd-ddm interpolate`` runs."""

from pathlib import Path

from mmd_ddm.config import check_seed
from mmd_ddm.jobs.build import build_device
from mmd_ddm.jobs.results import Results, load_result
from mmd_ddm.report.sheets import grid, save_sheet, sheet, zoom
from mmd_ddm.runs.files import check_writable, write_json
from mmd_ddm.runs.folder import RunLog
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.draw import draw_arc

__all__ = ["interpolate"]


def interpolate(
    run: str | Path,
    *,
    n: int = 4,
    frames: int = 9,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> Results:
    """Interpolate between noises (Eq. 8), and draw with base and finetuned model from the same.

    Args:
        run: a finished finetuning.
        n: pairs of noises.
        frames: images from one noise to the other.
        out: folder for ``interpolation.png`` (the paper's Figs. 9 and 10); by default the run's
            ``interpolation``, where a report finds it.
        seed: of the first noise; the next has ``seed + 1``.
        device: where to compute.
        progress: told what is done.

    Returns:
        The content of ``interpolation.json``: its ``sentence`` says what the picture shows.

    Raises:
        ValueError: no such run, or too few pairs or frames.
    """
    if n < 1 or frames < 2:
        raise ValueError(f"-n must be at least 1 and --frames 2; got {n} and {frames}")
    check_seed(seed)
    folder = out or Path(run) / "interpolation"
    check_writable(folder)
    result = load_result(run, build_device(device))
    samplers = result.samplers
    chain = result.chain
    sentence = (
        f"Spherical interpolation (Eq. 8) between {n} pairs of noises, {frames} images each, in "
        f"{len(chain.times)} {chain.sampler} steps; of each pair the base above, the finetuned "
        "model below."
    )
    record = {"sentence": sentence, "chain": list(chain.times)}
    settings = {"n": n, "frames": frames, "seed": seed}
    with RunLog(folder, "interpolate", settings, result.hashes):
        bands = []
        with progress.bar("interpolating", 2 * n) as bar:
            for first in range(seed, seed + 2 * n, 2):
                for name, sampler in samplers.items():
                    row = draw_arc(sampler, first, frames).numpy()
                    bands.append(("", [(name, grid(row, frames))]))
                    bar(advance=1, note=name)
        picture = sheet(bands, zoom(result.model.denoiser.shape[-1]))
        save_sheet(picture, folder / "interpolation.png")
        write_json(folder / "interpolation.json", record)
    return Results(record, folder)
