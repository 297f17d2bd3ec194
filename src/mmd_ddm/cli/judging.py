"""What ``finetune``, ``evaluate`` and ``demo`` judge with, under one progress bar each."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from mmd_ddm.bank import cached_features
from mmd_ddm.build import Model, build_sampler
from mmd_ddm.cli.console import console, progress_bar
from mmd_ddm.config import ChainConfig
from mmd_ddm.data import ImageSet
from mmd_ddm.evaluate import Space, draw, judge, result_row
from mmd_ddm.features import FeatureExtractor
from mmd_ddm.metrics import METRICS
from mmd_ddm.report import short_names, table_lines, verdict

__all__ = ["build_spaces", "evaluate_chain", "print_results", "protocol"]


def build_spaces(
    phis: Mapping[str, FeatureExtractor],
    roles: Mapping[str, str],
    reference: ImageSet,
    heldout: ImageSet,
    samples: int,
    device: torch.device,
) -> list[Space]:
    """Every space with its held-out features, and other reals as many as samples (floor)."""
    spaces = []
    other_images = reference.subset(samples)
    with progress_bar("features of the data", len(phis)) as bar:
        for name, phi in phis.items():
            real, other = (
                cached_features(images, phi, device=device) for images in (heldout, other_images)
            )
            spaces.append(Space(name, roles[name], phi, real.to(device), other))
            bar(advance=1, note=name)
    return spaces


def evaluate_chain(
    name: str, model: Model, chain: ChainConfig, n: int, seed: int, spaces: Sequence[Space]
) -> tuple[dict[str, Any], Tensor]:
    """Draw n images through this chain and judge them: a row of results, and the images."""
    sampler = build_sampler(chain, model.denoiser)
    with progress_bar(f"{name}, {len(sampler.times)} steps", n) as bar:
        pixels, speed = draw(sampler, n, seed=seed, on_batch=lambda k: bar(advance=k))
        bar(note="judging")
        metrics = judge(pixels, spaces, model.denoiser.device)
        bar()
    return result_row(name, model.name, chain, sampler, speed, metrics), pixels


def protocol(
    heldout: ImageSet, n: int, seed: int, metrics: Sequence[str] = ("kid", "fd")
) -> dict[str, Any]:
    """What every number of ``results.json`` was measured with."""
    return {
        "data": heldout.source,
        "data_sha256": heldout.sha256,
        "real": len(heldout),
        "samples": n,
        "seed": seed,
        "rounding": "uint8",
        **{name: METRICS[name].about for name in metrics},
    }


def print_results(results: dict[str, Any]) -> None:
    """The before/after table and, where there is an after, the verdict."""
    header, *lines = (line[:-1] for line in table_lines(results))
    # The selection space is neither optimised nor a judge; the report has it.
    lines = [line for line in lines if "selection" not in line] or lines
    caption = "KID in thousandths"
    if any("optimised" in line for line in lines):
        caption = f"* optimised; no other space was. {caption}"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption)
    # A star instead of the role, and no column without a value: the rest fits a terminal.
    short = short_names(list(results["spaces"]))
    lines = [[short[line[0]] + " *" * ("optimised" in line), *line[2:]] for line in lines]
    every = zip([header[0], *header[2:]], *lines, strict=True)
    columns = [c for c in every if set(c[1:]) != {"\N{EN DASH}"}]
    for name, *_ in columns:
        table.add_column(name.replace(", ", "\n").replace(" vs ", "\nvs "), no_wrap=True)
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*(cell.removesuffix(" x1000") for cell in cells))
    console.print(table)
    speedup = results.get("speedup")
    if speedup is None:
        return
    steps, reached = speedup["finetuned_steps"], speedup["base_steps"]
    if reached is None and max(speedup["searched"]) > steps:
        console.print(f"{steps} steps now beat the base's {max(speedup['searched'])}.")
    elif reached and reached > steps:
        below = max((tried for tried in speedup["searched"] if tried < reached), default=0)
        takes = f"more than {below}, at most {reached}"
        console.print(f"{steps} steps now draw what takes the base {takes}.")
    judged = verdict(results)
    console.print(judged.sentence)
    console.print(f"Rule: {judged.rule}", style="dim")
