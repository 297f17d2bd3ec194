"""``mmd-ddm sample``: images from a model."""

from pathlib import Path
from typing import Annotated, Any

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, Model, Seed, Text, chain_options, opt, reading_options
from mmd_ddm.config import ReadConfig
from mmd_ddm.settings import whole_numbers

__all__ = ["sample"]


@reading_options
@chain_options("steps sampler spacing times eta order clip guidance")
def sample(
    given: dict[str, Any],
    read: ReadConfig,
    model: Model,
    out: Annotated[Path, opt("Folder of the images; new, empty, or drawn before.")],
    n: Annotated[int, opt("How many images.", "-n")] = 64,
    start_from: Annotated[str, opt("Images to noise, and begin with (ES-DDPM).")] = "",
    label: Annotated[Text, opt("Classes to draw, as 3,7; by default all, by turns.")] = None,
    prompt: Annotated[list[str] | None, opt("What to draw; repeatable.")] = None,
    trajectory: Annotated[bool, opt("Show predictions of x_0, too.", "--trajectory")] = False,
    seed: Seed = 0,
    batch_size: Annotated[int, opt("Images at once.")] = 64,
    device: Device = "auto",
) -> None:
    """Draw images 00000.png, 00001.png ... and grid.png.

    A finetuned model draws with its own chain, unless another is given. Image i depends on
    SEED + i alone. With --trajectory, trajectory.png shows x_0 as predicted at every network call.

    Example: mmd-ddm sample base --start-from drafts/ --times 200,150,100,50,0 --out images
    """
    from mmd_ddm.jobs.sample import sample as draw
    from mmd_ddm.runs import ranks

    ranks.join()
    draw(
        model, out, given, n=n, start_from=start_from, read=read, trajectory=trajectory,
        labels=whole_numbers(label or "", "--label"), prompts=prompt or (), seed=seed,
        batch_size=batch_size, device=device, progress=bars,
    )  # fmt: skip
    console.print(f"saved {out}")
