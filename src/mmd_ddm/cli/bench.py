"""``mmd-ddm bench``: every sampler on one model, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.tables import print_bench

__all__ = ["bench"]


def bench(
    model: Annotated[str, typer.Argument(help="Diffusers folder, hub id, or fashion-mnist.")],
    data: Annotated[
        str, typer.Option(help="Real images to compare with: folder, zip, IDX, .npy/.npz ...")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the table; repeat it to go on.")],
    steps: Annotated[str, typer.Option(help="Numbers of sampling steps.")] = "5,10,15,20",
    samplers: Annotated[str, typer.Option(help="all, or names: ddim,unipc")] = "all",
    spacing: Annotated[
        str, typer.Option(help="leading, trailing ...; several give rows for each.")
    ] = "leading",
    times: Annotated[
        str | None, typer.Option(help="A custom list, rows of their own: 999,640,320,80")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="Finetuned run, a row on its own chain; repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", help="Images a row and seed.")] = 3000,
    seeds: Annotated[int, typer.Option(help="How many; more than one gives standard errors.")] = 1,
    features: Annotated[
        list[str] | None,
        typer.Option(help="Space to judge in, e.g. encoder:PATH; repeat for several."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once; 0 is what is fast.")] = 0,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    resize: Annotated[bool, typer.Option("--resize", help="Crop and scale images.")] = False,
) -> None:
    """Compare samplers, and finetuned runs, on one MODEL: same noise, same images, same spaces.

    OUT then holds bench.md, .tex, .csv, .json and .png. Rows are remembered: the same command
    again, or one that asks for more, draws only what is missing.

    Example: mmd-ddm bench base --data photos/ --steps 5,10 --run run --out table
    """
    from mmd_ddm.cli.chain import parse_steps, parse_times, split_words
    from mmd_ddm.jobs.compare import compare

    found = compare(
        model,
        data,
        samplers=split_words(samplers),
        steps=parse_steps(steps),
        spacings=split_words(spacing),
        times=parse_times(times) or (),
        runs=run or (),
        n=samples,
        seeds=seeds,
        features=features or (),
        batch_size=batch_size,
        precision=precision,
        device=device,
        resize=resize,
        out=out,
        progress=bars,
    )
    print_bench(found.record)
    console.print(f"saved {out}: bench.md, .tex, .csv, .json, .png")
