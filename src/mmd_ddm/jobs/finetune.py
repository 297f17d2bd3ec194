"""The main job from end to end: finetune, judge before and after, write what a reader needs.

``mmd-ddm finetune`` and ``mmd-ddm demo`` are this with different settings.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.config import ChainConfig, FinetuneConfig, to_mapping
from mmd_ddm.data.images import ImageSet, say_skipped
from mmd_ddm.data.split import Split
from mmd_ddm.evaluation.judge import Space, equal_quality_steps
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.registry import FeatureExtractor, make_features
from mmd_ddm.jobs.build import (
    Model,
    build_data,
    build_device,
    build_sampler,
    load_model,
    resolve_times,
)
from mmd_ddm.jobs.fit_memory import fit
from mmd_ddm.jobs.judging import build_spaces, evaluate_chain, protocol
from mmd_ddm.maths.kernels import make_kernel
from mmd_ddm.models.export import export
from mmd_ddm.models.lora import adapt, merge
from mmd_ddm.report import verdict, write_card, write_report
from mmd_ddm.report.sheets import grid, pairs, save_png
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import RunLog, check_folder, write_json
from mmd_ddm.runs.launch import is_first
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.runs.trackers import tracked
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.keep_best import Selection, say_kept, selection_record, standing
from mmd_ddm.training.memory_plan import Choice
from mmd_ddm.training.objective import Objective

__all__ = ["run_job", "train_run"]

_PAIRS, _REAL, _SHEET_COLUMNS = 24, 16, 8
_REFERENCES = ("bank", "minibatch")


@dataclasses.dataclass(frozen=True)
class _Job:
    """Everything the job works with."""

    config: FinetuneConfig
    out: Path
    device: torch.device
    model: Model
    chain: ChainConfig  # with its times
    data: Split
    phis: dict[str, FeatureExtractor]
    objectives: list[Objective]
    choice: Choice  # how an iteration fits
    adapter: Any  # of LoRA, if it is what is trained
    log: RunLog
    trackers: Sequence[str]
    progress: Progress

    @property
    def samples(self) -> int:
        """Images drawn for a row: no more than there are real ones beside them."""
        return min(self.config.judge_samples, len(self.data.heldout))

    def evaluate(
        self, name: str, chain: ChainConfig, spaces: list[Space]
    ) -> tuple[dict[str, Any], Tensor]:
        return evaluate_chain(
            name, self.model, chain, self.samples, self.config.seed, spaces, self.progress
        )


def run_job(
    config: FinetuneConfig,
    out: Path,
    trackers: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Finetune as configured; the run folder then holds model, results, picture and report."""
    job = _prepare(config, out, trackers, progress)
    progress.say(
        f"finetuning {config.model} to {len(job.chain.times)} {job.chain.sampler} steps "
        f"{list(job.chain.times)} on {job.device}; {len(job.data.reference):,} images to match, "
        f"{len(job.data.selection or ()):,} to select by, {len(job.data.heldout):,} held out"
    )
    say_skipped(progress, job.data.reference, job.data.heldout)
    if job.data.dropped:
        progress.say(f"{job.data.dropped:,} more were among the images to match: left out")
    spaces = build_spaces(
        job.phis,
        _roles(config),
        job.data.reference,
        job.data.heldout,
        job.samples,
        job.device,
        progress,
    )
    before, base_pixels = job.evaluate("base", job.chain, spaces)
    longer = [
        job.evaluate("base", chain, spaces)[0] for chain in _longer_chains(config, job.model)
    ]
    kept = _train_and_export(job)
    after, pixels = job.evaluate("finetuned", job.chain, spaces)
    job.log.write(
        event="done",
        weights_sha256=weights_sha256(job.model.denoiser.network),
        samples_sha256=ImageSet(pixels, "samples").sha256,
    )
    rows = [before, *longer, after]
    results = {
        "protocol": {
            **protocol(job.data.heldout, job.samples, config.seed),
            "heldout_dropped": job.data.dropped,
            **selection_record(config, job.data.selection, job.log.events(), kept),
        },
        "spaces": {space.name: space.describe() for space in spaces},
        "rows": rows,
        "speedup": equal_quality_steps(rows, [*config.judges, *config.objective.features][0]),
    }
    if is_first():
        _write(job, results, base_pixels, pixels)
    return results


def _write(job: _Job, results: dict[str, Any], base_pixels: Tensor, pixels: Tensor) -> None:
    """What a reader needs, beside the model."""
    out = job.out
    write_json(out / "results.json", {**results, "verdict": verdict(results).record()})
    before, after = base_pixels[:_PAIRS].numpy(), pixels[:_PAIRS].numpy()
    picture = pairs(before, after, job.data.heldout.subset(_REAL).pixels.numpy())
    save_png(picture, out / "pairs.png", scale=2)
    for name, images in (("before", before), ("after", after)):
        save_png(grid(images, _SHEET_COLUMNS), out / f"{name}.png", scale=2)
    write_card(out)
    write_report([out], out / "report.html")


def train_run(config: FinetuneConfig, out: Path, progress: Progress = silent) -> None:
    """Finetune as configured, and judge nothing; the run folder then holds the model and the log.

    To resume, call it again.
    """
    job = _prepare(config, out, (), progress)
    _train_and_export(job)
    job.log.write(event="done", weights_sha256=weights_sha256(job.model.denoiser.network))


def _train_and_export(job: _Job) -> int:
    kept = _train(job)
    say_kept(job.config, job.log.events(), kept, job.progress)
    merge(job.adapter, job.out / "adapter" if is_first() else None)
    if is_first():
        export(
            job.model.denoiser,
            job.model.scheduler_config,
            dataclasses.asdict(job.chain),
            job.out / "model",
        )
    return kept


def _prepare(
    config: FinetuneConfig, out: Path, trackers: Sequence[str], progress: Progress
) -> _Job:
    """Load everything and open the run folder, which comes last: bad settings leave no trace."""
    check_folder(out, "finetune", to_mapping(config))
    roles = _roles(config)
    device = build_device(config.device)
    model = load_model(config.model, device, config.precision)
    model.denoiser.use_fast_layout()  # before the base is timed, as the finetuned model will be
    shape = model.denoiser.shape
    chain = resolve_times(config.chain, model.denoiser.schedule)
    for planned in (chain, *_longer_chains(config, model)):
        build_sampler(planned, model.denoiser)
    data = build_data(config, shape)
    phis = {name: make_features(name, shape[0]).to(device) for name in roles}
    _check_distinct(phis)
    objectives = _objectives(config, phis, data.reference, device, progress)
    inputs = {"model_sha256": weights_sha256(model.denoiser.network), **data.hashes}
    adapter = adapt(model.denoiser.network, config.trained, config.lora_rank, config.seed)
    sampler = build_sampler(chain, model.denoiser)
    choice = fit(config, sampler, [objective.phi for objective in objectives], out, progress)
    log = RunLog(out, "finetune", to_mapping(config), inputs)
    log.write(event="plan", **dataclasses.asdict(choice))
    return _Job(
        config,
        out,
        device,
        model,
        chain,
        data,
        phis,
        objectives,
        choice,
        adapter,
        log,
        trackers,
        progress,
    )


def _train(job: _Job) -> int:
    """The training with its progress bar; the iteration that was kept."""
    config, watch = job.config, None
    sampler = build_sampler(job.chain, job.model.denoiser, recompute=job.choice.recompute)
    sampler.keep = job.choice.keep
    if job.data.selection is not None:
        phi = job.phis[config.select.features]
        watch = Selection(config, sampler, phi, job.data.selection)
    with (
        tracked(job.trackers, job.out, to_mapping(config)) as follow,
        job.progress.bar("finetuning", config.iterations) as bar,
    ):
        loss, distance = "", ""

        def on_event(**event: Any) -> None:
            nonlocal loss, distance
            follow(**event)
            if event["event"] == "eval":
                job.log.write(**event, space=config.select.features)
                distance = standing(job.log.events())
            else:
                job.log.write(**event)
            if event["event"] == "train":
                loss = f"MMD² {event['loss']:.2f}"
            if "message" in event:
                job.progress.say(event["message"])
            else:
                bar(done=event["step"], note=f"{loss} {distance}")

        planned = dataclasses.replace(config, micro_batch=job.choice.micro_batch)
        checkpoint = job.out / "checkpoint.pt"
        return finetune(planned, sampler, job.objectives, checkpoint, on_event, watch)


def _roles(config: FinetuneConfig) -> dict[str, str]:
    """Role of every space; a space has one role, so that a judge is never optimised."""
    roles: dict[str, str] = {}
    for names, role in (
        (config.objective.features, "optimised"),
        ((config.select.features,), "selection"),
        (config.judges, "held-out"),
    ):
        for name in names:
            if name in roles:
                raise ValueError(
                    f"{name} cannot be {role} as well as {roles[name]}: choose another space for "
                    "objective.features, select.features or judges"
                )
            roles[name] = role
    return roles


def _check_distinct(phis: dict[str, FeatureExtractor]) -> None:
    """One network under two names would be its own judge."""
    names: dict[str, str] = {}
    for name, phi in phis.items():
        other = names.setdefault(phi.sha256, name)
        if other != name:
            raise ValueError(
                f"{name} and {other} are one feature space, with equal weights: choose another "
                "for objective.features, select.features or judges"
            )


def _objectives(
    config: FinetuneConfig,
    phis: dict[str, FeatureExtractor],
    reference: ImageSet,
    device: torch.device,
    progress: Progress,
) -> list[Objective]:
    chosen = config.objective
    weights = chosen.weights or (1.0,) * len(chosen.features)
    if len(weights) != len(chosen.features):
        raise ValueError(
            f"objective.weights has {len(weights)} entries, objective.features "
            f"{len(chosen.features)}"
        )
    if chosen.reference not in _REFERENCES:
        raise ValueError(
            f"unknown reference {chosen.reference!r}; choose one of {', '.join(_REFERENCES)}"
        )
    kernel = make_kernel(chosen.kernel)
    objectives = []
    with progress.bar("features to match", len(weights) * len(reference)) as bar:
        for done, (name, weight) in enumerate(zip(chosen.features, weights, strict=True), 1):
            features = cached_features(
                reference, phis[name], device=device, on_batch=lambda k: bar(advance=k)
            )
            objectives.append(
                Objective.over(
                    phis[name],
                    features,
                    kernel,
                    weight,
                    standardise=chosen.standardise,
                    landmarks=chosen.landmarks,
                    device=device,
                )
            )
            bar(done=done * len(reference))
    return objectives


def _longer_chains(config: FinetuneConfig, model: Model) -> list[ChainConfig]:
    """The base's chain at other numbers of steps: the same sampler, the same spacing."""
    schedule = model.denoiser.schedule
    own = len(resolve_times(config.chain, schedule).times)
    return [
        resolve_times(dataclasses.replace(config.chain, steps=steps, times=()), schedule)
        for steps in config.compare_steps
        if steps != own
    ]
