"""``mmd-ddm sample``: images from a model."""

from pathlib import Path
from typing import Annotated, Any

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, Model, Seed, chain_options, opt, reading_options
from mmd_ddm.config import ReadConfig

__all__ = ["sample"]


@reading_options
@chain_options("steps sampler spacing times eta order clip")
def sample(
    given: dict[str, Any],
    read: ReadConfig,
    model: Model,
    out: Annotated[Path, opt("Folder of the images; new, empty, or drawn before.")],
    n: Annotated[int, opt("How many images.", "-n")] = 64,
    start_from: Annotated[str, opt("Images to noise, and begin with (ES-DDPM).")] = "",
    trajectory: Annotated[bool, opt("Show predictions of x_0, too.", "--trajectory")] = False,
    seed: Seed = 0,
    batch_size: Annotated[int, opt("Images at once.")] = 64,
    device: Device = "auto",
) -> None:
    """Draw images 00000.png, 00001.png ... and grid.png.

    A finetuned model draws with its own chain, unless another is given. Image i depends on
    SEED + i alone, not on N or the batch size. With --trajectory, trajectory.png shows what the
    first images were predicted to become at every network call.

    Example: mmd-ddm sample run -n 64 --out images

    Example: mmd-ddm sample run -n 8 --trajectory --out images

    Example: mmd-ddm sample base --start-from drafts/ --times 200,150,100,50,0 --out images
    """
    from mmd_ddm.jobs.sample import sample as draw
    from mmd_ddm.runs import ranks

    ranks.join()
    draw(
        model, out, given, n=n, start_from=start_from, read=read, trajectory=trajectory,
        seed=seed, batch_size=batch_size, device=device, progress=bars,
    )  # fmt: skip
    console.print(f"saved {out}")
