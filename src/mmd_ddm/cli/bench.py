"""``mmd-ddm bench``: every sampler on one model, in one table."""

from pathlib import Path
from typing import Annotated

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, Model, OwnData, Text, Words, opt, reading_options
from mmd_ddm.config import ReadConfig
from mmd_ddm.settings import numbers, whole_numbers, words

__all__ = ["bench"]


@reading_options
def bench(
    read: ReadConfig,
    model: Model,
    out: Annotated[Path, opt("Folder of the table; repeat it to go on.")],
    data: OwnData = None,
    steps: Annotated[str, opt("Numbers of sampling steps.")] = "5,10,15,20",
    samplers: Annotated[str, opt("all, or names: ddim,unipc")] = "all",
    spacing: Annotated[
        str, opt("Each gives rows; with published, a sampler's own times, its best is shown.")
    ] = "published,midpoint",
    times: Annotated[Text, opt("A custom list, rows of their own: 999,640,320,80")] = None,
    run: Annotated[Words, opt("Finetuned run, on its own chain; repeatable")] = None,
    samples: Annotated[int, opt("Images a row and seed.", "--samples", "-n")] = 3000,
    seeds: Annotated[int, opt("How many; more than one gives standard errors.")] = 1,
    features: Annotated[Words, opt("Space to judge in, e.g. encoder:PATH; repeatable")] = None,
    batch_size: Annotated[int, opt("Images at once; 0 is what is fast.")] = 0,
    precision: Annotated[str, opt("float32 or bfloat16.")] = "float32",
    device: Device = "auto",
) -> None:
    """Compare samplers, and finetuned runs, on one MODEL: same noise, same images, same spaces.

    OUT then holds bench.md, .tex, .csv, .json and .png. What was drawn before is not drawn again.

    Example: mmd-ddm bench base --data photos/ --steps 5,10 --run run --out table
    """
    from mmd_ddm.jobs.compare import compare
    from mmd_ddm.report.terminal import shown_bench

    found = compare(
        model, data, samplers=words(samplers), steps=whole_numbers(steps),
        spacings=words(spacing), times=numbers(times) if times else (), runs=run or (), n=samples,
        seeds=seeds, features=features or (), batch_size=batch_size, precision=precision,
        device=device, read=read, out=out, progress=bars,
    )  # fmt: skip
    console.print(shown_bench(found.record))
    console.print(f"saved {out}: bench.md, .tex, .csv, .json, .png")
