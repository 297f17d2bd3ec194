"""``mmd-ddm neighbors``: do the samples of a run repeat its training images?"""

from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, Run, Seed, opt

__all__ = ["neighbors"]


def neighbors(
    run: Run,
    data: Annotated[str, opt("Training images to search; default: those of the run.")] = "",
    space: Annotated[str, opt("Of the distances; default: the run's first judge.")] = "",
    n: Annotated[int, opt("Images drawn with either model.", "-n")] = 1000,
    k: Annotated[int, opt("Nearest training images shown of each.", "-k")] = 4,
    out: Annotated[Path | None, opt("Folder; default: RUN/neighbors.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Find the training images nearest to samples of the base and of the finetuned model.

    Both draw from the same noise. OUT then holds neighbors.png (the paper's Figs. 3 and 8) and
    neighbors.json: whether samples lie nearer to the training images than the run's held-out real
    images do, tested with a p-value, and the share of samples that are not authentic. A report
    written afterwards shows both.

    Example: mmd-ddm neighbors run --data photos/ --space efficientnet-lite0
    """
    from mmd_ddm.jobs.copies import find_copies

    found = find_copies(
        run, data=data, space=space, n=n, k=k, out=out, seed=seed, device=device, progress=bars
    )
    console.print(found.record["sentence"])
    console.print(f"saved {found.folder}; mmd-ddm report {run} --out report.html shows it")
