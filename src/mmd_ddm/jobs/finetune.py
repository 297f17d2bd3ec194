"""The main job from end to end: finetune, judge before and after, write what a reader needs.

``mmd-ddm finetune`` and ``mmd-ddm demo`` are `run` with different settings; `finetune` is the same
for objects in memory.
"""

import textwrap
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.data.images import ImageSet, Split
from mmd_ddm.data.split import split_images
from mmd_ddm.evaluation.measure import protocol
from mmd_ddm.evaluation.space import describe
from mmd_ddm.evaluation.verdict import listed, verdict
from mmd_ddm.jobs.build import Model
from mmd_ddm.jobs.chain import ChainLike
from mmd_ddm.jobs.judge import compare_to_base, judge_chain, judge_spaces, other_budgets
from mmd_ddm.jobs.longer import longer_record
from mmd_ddm.jobs.recipe import complete, words
from mmd_ddm.jobs.results import FinetuneResult
from mmd_ddm.jobs.train import Job, finish, longer_chains, prepare, train_and_export
from mmd_ddm.report import write_card, write_report
from mmd_ddm.report.sheets import grid, pairs, save_png, save_sheet, sheet
from mmd_ddm.runs.files import write_json
from mmd_ddm.runs.launch import is_first
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.settings import from_mapping, to_mapping, with_most_steps
from mmd_ddm.training.keep_best import selection_record

__all__ = ["finetune", "run"]

_PAIRS, _REAL, _SHEET_COLUMNS = 24, 16, 8
_CLASSES, _OF_CLASS = 20, 8  # or prompts that are shown, and pairs of each
_LONGEST = 90  # letters of a prompt


def finetune(
    model: str | Model,
    data: str | ImageSet | Split,
    chain: ChainLike | None = None,
    *,
    out: str | Path,
    features: Sequence[str] | None = None,
    trackers: Sequence[str] = (),
    progress: Progress = silent,
    **settings: Any,
) -> FinetuneResult:
    """Finetune a model for K steps by the unbiased MMD (Eq. 7), and judge the result.

    The run folder then holds ``model/`` (which diffusers loads), ``results.json``, ``pairs.png``
    and ``report.html``. The same call resumes.

    Args:
        model: a folder, hub id or bundled name, or what `load` gave; it is left as it is.
        data: images, by name or loaded; a `Split` says itself what is held out.
        chain: how many steps of which sampler: a whole chain, or fields of one, of which a recipe
            may say the others; by default that of `ChainConfig`, in the most steps of
            ``budgets=[3, 5, 8, 12]`` where one model serves several.
        out: the run folder, new or of the same run.
        features: spaces to optimise in.
        trackers: names, see `mmd_ddm.runs.trackers`.
        progress: told what is done.
        settings: any other of `FinetuneConfig`: ``iterations=140, select={"every": 35}`` ...

    Raises:
        ValueError: whatever cannot be, in one line.
    """
    loaded = None
    if isinstance(model, Model):
        loaded = replace(model, denoiser=deepcopy(model.denoiser))
        settings = {"device": str(model.denoiser.device), **settings}
        model = model.name
    if features is not None:
        settings["objective"] = {**settings.get("objective", {}), "features": list(features)}
    named: dict[str, Any] = {
        "model": model,
        "data": data if isinstance(data, str) else _source(data),
    }
    if chain is not None:
        named["chain"] = to_mapping(chain) if isinstance(chain, ChainConfig) else dict(chain)
    config = from_mapping(FinetuneConfig, complete(with_most_steps({**named, **settings}), loaded))
    if isinstance(data, ImageSet):
        data = split_images(data, None, seed=config.seed, select=config.select.every > 0)
    parts = data if isinstance(data, Split) else None
    return run(config, Path(out), model=loaded, data=parts, trackers=trackers, progress=progress)


def _source(data: ImageSet | Split) -> str:
    return data.source if isinstance(data, ImageSet) else data.matched.source


def run(
    config: FinetuneConfig,
    out: Path,
    *,
    model: Model | None = None,
    data: Split | None = None,
    trackers: Sequence[str] = (),
    progress: Progress = silent,
) -> FinetuneResult:
    """The same, as configured.

    The arguments are those of `prepare`, which says what it raises.
    """
    with prepare(config, out, model=model, data=data, trackers=trackers, progress=progress) as job:
        return _finetune_and_judge(job)


def _finetune_and_judge(job: Job) -> FinetuneResult:
    config, progress = job.config, job.progress
    _announce(job)
    spaces = judge_spaces(config, job.phis, job.data, job.device)
    about = describe(spaces, progress)
    longer, others = longer_chains(config, job.model), other_budgets(job.chain, job.budgets)
    chains = [job.chain, *others, *longer]
    before = [judge_chain("base", job.model, c, spaces, config, progress) for c in chains]
    kept, chain = train_and_export(job)
    after = [
        judge_chain("finetuned", job.model, c, spaces, config, progress) for c in (chain, *others)
    ]
    results: dict[str, Any] = {
        "protocol": {
            **protocol(job.data.heldout, config.judge_samples, config.seed),
            "heldout_dropped": job.data.dropped,
            **selection_record(config, job.data.selection, job.log.events(), kept),
            **({"budgets": _budgets_words(job)} if job.budgets else {}),
            **({"method": config.method} if config.method != "mmd" else {}),
            **longer_record(job.log.events()),
        },
        "spaces": about,
        **compare_to_base(before, after, spaces),
    }
    results["verdict"] = verdict(results).record()
    if is_first():
        told = results["speedup"]["finetuned_steps"]
        shown = [
            next(one.images for one in found if one.row["steps"] == told)
            for found in (before, after)
        ]
        _write(job, results, *shown)
    finish(job, kept, samples_sha256=after[0].images.sha256)
    model = replace(job.model, name=str(job.out), chain=chain, budgets=job.budgets)
    return FinetuneResult(job.out, config, model, results)


def _announce(job: Job) -> None:
    data, times = job.data, list(job.chain.times)
    to = f"{len(times)} {job.chain.sampler} steps {times}"
    if job.budgets:
        to = f"{listed(job.config.budgets)} {job.chain.sampler} steps, {_budgets_words(job)},"
    job.progress.say(
        f"finetuning {job.config.model} to {to} on "
        f"{job.device}; {len(data.matched):,} images to match, {len(data.selection or ()):,} to "
        f"select by, {len(data.heldout):,} held out"
    )
    if classes := job.model.denoiser.classes:
        job.progress.say(f"{len(classes)} classes, condition.match = {job.config.condition.match}")
    job.progress.say(words(job.config))
    if data.dropped:
        job.progress.say(f"{data.dropped:,} more were among the images to match: left out")


def _budgets_words(job: Job) -> str:
    """How K is drawn, and at which numbers of steps the spacing is another than asked for."""
    asked = job.config.chain.spacing
    others = [len(one.times) for one in job.budgets if one.spacing != asked]
    drawn = "one an iteration, drawn in proportion to the steps"
    if not others:
        return drawn
    return f"{drawn}; {listed(others)} steps are trailing: {asked} would begin too far from noise"


def _write(job: Job, results: dict[str, Any], base: ImageSet, finetuned: ImageSet) -> None:
    """What a reader needs, beside the model."""
    out = job.out
    write_json(out / "results.json", results)
    before, after = (images[:_PAIRS].numpy() for images in (base, finetuned))
    real = job.data.heldout.subset(_REAL).pixels.numpy()
    save_png(pairs(before, after, real), out / "pairs.png", scale=2)
    for name, pixels in (("before", before), ("after", after)):
        save_png(grid(pixels, _SHEET_COLUMNS), out / f"{name}.png", scale=2)
    if bands := _by_condition(base, finetuned, job.data.heldout):
        name = "prompts.png" if base.captions else "classes.png"
        save_sheet(sheet(bands, 2), out / name)
    write_card(out)
    write_report([out], out / "report.html")


def _by_condition(*sets: ImageSet) -> list[tuple[str, list[tuple[str, Any]]]]:
    """A band a prompt or class, where they are known: base above, finetuned below, real beside."""
    classes, bands = sets[-1].classes, []
    told: list[Sequence[str]] = [images.captions for images in sets]
    if not all(told):
        labels = [images.labels for images in sets if images.labels is not None]
        told = [[classes[i] for i in of.tolist()] for of in labels if len(labels) == len(sets)]
    for name in list(dict.fromkeys(classes if not sets[0].captions else told[-1]))[:_CLASSES]:
        rows = [[i for i, one in enumerate(names) if one == name][:_OF_CLASS] for names in told]
        if rows and all(rows):
            base, finetuned, real = (
                images[torch.tensor(some)].numpy() for images, some in zip(sets, rows, strict=True)
            )
            shown = textwrap.shorten(name, _LONGEST, placeholder=" ...")
            bands.append((shown, [("", pairs(base, finetuned, real, _OF_CLASS))]))
    return bands
