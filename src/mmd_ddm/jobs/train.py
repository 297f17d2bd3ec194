"""A finetuning without its judgement: load everything, train, export.

The run folder then holds the model, the log, and the state to resume from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.data.images import Split, say_read
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import (
    Model,
    build_data,
    build_device,
    build_sampler,
    check_classes,
    load_model,
    name_null_label,
    resolve_chain,
    resolve_chains,
    resolve_or_trailing,
    say_notes,
)
from mmd_ddm.jobs.learned import chain_tables, learned_chain, trainable_sampler
from mmd_ddm.jobs.longer import check_longer, drop_checkpoint, finished_at, note_longer
from mmd_ddm.jobs.plan import fit
from mmd_ddm.jobs.roles import check_distinct, roles_of
from mmd_ddm.jobs.teacher import teacher_of
from mmd_ddm.jobs.under import conditions_of
from mmd_ddm.models.chain_table import table_in
from mmd_ddm.models.export import export
from mmd_ddm.models.lora import adapt, check_trained, merge, usually_trained
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.files import check_space
from mmd_ddm.runs.fingerprint import key_of, weights_sha256
from mmd_ddm.runs.folder import RunLog, check_folder
from mmd_ddm.runs.launch import is_first
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.runs.trackers import check_trackers, tracked
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.settings import to_mapping
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.keep_best import Selection, kept_words, selected_by, standing
from mmd_ddm.training.losses.base import Loss, Source, drawn_labels
from mmd_ddm.training.losses.registry import make_loss
from mmd_ddm.training.memory_plan import Choice
from mmd_ddm.training.objective import Objective, build_objectives
from mmd_ddm.training.state import disk_bytes

__all__ = ["Job", "finish", "longer_chains", "prepare", "train", "train_and_export"]


@dataclass(frozen=True)
class Job:
    """Everything a finetuning works with.

    Attributes:
        config: the settings.
        out: the run folder.
        device: where all is computed.
        model: whose network is trained in place.
        chain: with its times.
        budgets: the same for every number of steps, fewest first; empty if there is one.
        data: matched, selected by, held out.
        phis: every space, by its name.
        objectives: what is matched.
        loss: of an iteration.
        choice: how an iteration fits.
        adapter: of LoRA, if it is what is trained.
        log: of the run.
        trackers: where curves go besides.
        progress: told what is done.
    """

    config: FinetuneConfig
    out: Path
    device: torch.device
    model: Model
    chain: ChainConfig
    budgets: tuple[ChainConfig, ...]
    data: Split
    phis: dict[str, FeatureExtractor]
    objectives: list[Objective]
    loss: Loss
    choice: Choice
    adapter: Any
    log: RunLog
    trackers: Sequence[str]
    progress: Progress


@contextmanager
def prepare(
    config: FinetuneConfig,
    out: Path,
    *,
    model: Model | None = None,
    data: Split | None = None,
    trackers: Sequence[str] = (),
    progress: Progress = silent,
) -> Iterator[Job]:
    """Load everything and open the run folder, which comes last: bad settings leave no trace.

    Within, no other process writes there.

    Args:
        config: the settings.
        out: the run folder.
        model: in place of the one that ``config`` names; changed in place.
        data: likewise.
        trackers: names, see `mmd_ddm.runs.trackers`.
        progress: told what is done.

    Raises:
        ValueError: whatever cannot be.
    """
    check_folder(out, "finetune", to_mapping(config))
    check_longer(out, config.iterations)
    check_trackers(trackers)
    check_trained(config.trained_weights)
    roles = roles_of(config)
    device = build_device(config.device)
    model = model or load_model(config.model, device, config.precision)
    denoiser = model.denoiser
    name_null_label(denoiser, config.condition.null_label)
    say_notes(denoiser, progress)
    denoiser.use_fast_layout()  # before the base is timed, as the finetuned model will be
    chain, budgets = resolve_chains(config, denoiser)
    _check_chains(config, model, chain, budgets)
    config, began_with, adapter = _adapted(config, denoiser)
    decoder = denoiser.use_decoder(config.decoder)
    check_space(out, disk_bytes(denoiser.network, config.keep))
    data = data or build_data(
        config,
        denoiser.shape,
        labels=bool(denoiser.classes),
        captions=denoiser.of_captions,
        progress=progress,
    )
    parts = [part for part in (data.matched, data.heldout, data.selection) if part]
    check_classes([model], *parts)
    under = conditions_of(config.condition, denoiser, data.matched, device)
    if under.labels is not None:  # or say now that a batch is too small
        drawn_labels(config.condition, under.labels, config.batch_size, config.seed, 0)
    say_read(progress, data.matched, data.heldout)
    phis = {
        name: make_features(name, denoiser.shape[0]).to(device)
        for name in (*roles, *config.rewards)
    }
    check_distinct(phis, roles | dict.fromkeys(config.rewards, "optimised"))
    spaces = {
        "objective.features_sha256": config.optimised,
        "select.features_sha256": (config.select.features,),
        "judges_sha256": config.judges,
        **({"reward.of_sha256": config.rewards} if config.rewards else {}),
    }
    settings = to_mapping(replace(config, device=str(device)))
    inputs = {
        "model_sha256": began_with,
        "chain_sha256": key_of(asdict(chain), *map(asdict, budgets)),
        **data.hashes,
        **({"decoder_sha256": decoder} if decoder else {}),
        **{key: key_of([phis[n].sha256 for n in names]) for key, names in spaces.items()},
    }
    check_folder(out, "finetune", settings, inputs)
    optimised = {name: phis[name] for name in config.optimised}
    matched = data.matched, device, progress
    objectives = build_objectives(config.objective, optimised, *matched, **under.to_match)
    loss = make_loss(
        config,
        Source(
            objectives,
            under.labels,
            data.matched.store,
            teacher_of(config, chain, denoiser),
            phis.get(config.reward.of),
            progress,
            under.conditions,
        ),
        build_sampler(chain, denoiser),
    )
    longest = build_sampler(
        replace((budgets or (chain,))[-1], guidance=config.chain.guidance), denoiser
    )
    choice = fit(config, longest, [phis[name] for name in config.losses], out, progress)
    with RunLog(out, "finetune", settings, inputs) as log:
        note_longer(log, config.iterations, progress, cosine=config.cosine)
        log.write(event="plan", **asdict(choice))
        yield Job(
            config, out, device, model, chain, budgets, data, phis, objectives, loss, choice,
            adapter, log, trackers, progress,
        )  # fmt: skip


def _adapted(config: FinetuneConfig, denoiser: Denoiser) -> tuple[FinetuneConfig, str, Any]:
    """With what is trained filled in: the settings, the model's hash, and what `adapt` gives."""
    config = replace(config, trained=config.trained or usually_trained(denoiser.network))
    denoiser.hold(config.trained_weights)
    before = denoiser.sha256
    adapter = adapt(denoiser.network, config.trained_weights, config.lora_rank, config.seed)
    return config, before, adapter


def _check_chains(
    config: FinetuneConfig, model: Model, chain: ChainConfig, budgets: Sequence[ChainConfig]
) -> None:
    """Whether each can be walked, before anything slow."""
    trainable_sampler(chain, model.denoiser, config.trained_numbers)
    for planned in (*budgets, *longer_chains(config, model)):
        build_sampler(planned, model.denoiser)


def train(config: FinetuneConfig, out: Path, progress: Progress = silent) -> None:
    """Finetune as configured, and judge nothing. To resume, call it again."""
    with prepare(config, out, progress=progress) as job:
        kept, _ = train_and_export(job)
        finish(job, kept)


def finish(job: Job, kept: int, **hashes: str) -> None:
    """Write into the log what was made, and drop the checkpoint unless it is to be kept."""
    weights = weights_sha256(job.model.denoiser.network)
    job.log.write(event="done", kept=kept, weights_sha256=weights, **hashes)
    if is_first() and not job.config.keep_checkpoint:
        drop_checkpoint(job.out)


def train_and_export(job: Job) -> tuple[int, ChainConfig]:
    """Train with a progress bar, and write ``model/``; if it is all that is left, read it.

    Returns:
        The iteration that was kept, and the chain, as it is now.
    """
    if (kept := finished_at(job.out)) is not None:
        job.progress.say(f"finished before: {job.out / 'model'} is that of iteration {kept}")
        return kept, _finished_chain(job)
    denoiser, recompute = job.model.denoiser, job.choice.recompute
    sampler = trainable_sampler(
        job.chain, denoiser, job.config.trained_numbers, recompute=recompute
    )
    samplers = [build_sampler(one, denoiser, recompute=recompute) for one in job.budgets]
    kept = _train(job, sampler, samplers)
    words = kept_words(job.config, job.log.events(), kept)
    if words:
        job.progress.say(words)
    if is_first():
        denoiser.save_lora(job.adapter, job.out)
    denoiser.hold("all")  # in half precision, small additions would be lost
    merge(job.adapter, job.out / "adapter" if is_first() else None)
    chain, table = learned_chain(sampler, job.chain)
    if is_first():
        config, folder = job.model.scheduler_config, job.out / "model"
        budgets = chain_tables(job.budgets, denoiser)
        export(denoiser, config, asdict(chain), folder, table=table, budgets=budgets)
    return kept, chain


def _finished_chain(job: Job) -> ChainConfig:
    """Put the weights of ``model/`` into the network of the job, in its layout in memory."""
    finished, denoiser = load_model(str(job.out), job.device), job.model.denoiser
    denoiser.hold("all")
    merge(job.adapter, None)
    denoiser.network.load_state_dict(finished.denoiser.network.state_dict())
    if job.config.trained_numbers and finished.chain and finished.chain.sampler == "learned":
        denoiser.beside["table"] = table_in(finished.denoiser)
    return finished.chain or job.chain


def _train(job: Job, sampler: Sampler, budgets: Sequence[Sampler]) -> int:
    config, watch = job.config, None
    for one in (sampler, *budgets):
        one.keep = job.choice.keep
    if job.data.selection is not None:
        phi = job.phis[config.select.features]
        watch = Selection(config, sampler, phi, job.data.selection, budgets)
    with (
        tracked(job.trackers, job.out, to_mapping(config)) as follow,
        job.progress.bar("finetuning", config.iterations) as bar,
    ):
        loss, distance = "", ""
        named = "MMD²" if config.method == "mmd" else "loss"

        def on_event(**event: Any) -> None:
            nonlocal loss, distance
            follow(**event)
            if event["event"] == "eval":
                each = {"kids": watch.kids} if watch and watch.kids else {}
                job.log.write(**event, space=selected_by(config), **each)
                # The first rank alone writes the log, and shows the bar.
                distance = standing(job.log.events()) if is_first() else ""
            else:
                job.log.write(**event)
            if event["event"] == "train":
                loss = f"{named} {event['loss']:.2f}"
            if "message" in event:
                job.progress.say(event["message"])
            else:
                bar(done=event["step"], note=f"{loss} {distance}")

        planned = replace(config, micro_batch=job.choice.micro_batch)
        checkpoint = job.out / "checkpoint.pt"
        return finetune(
            planned, sampler, job.objectives, checkpoint, on_event, watch, budgets, loss=job.loss
        )  # fmt: skip


def longer_chains(config: FinetuneConfig, model: Model) -> list[ChainConfig]:
    """The base's chain at other numbers of steps: the same sampler, the same spacing.

    With guidance, also those of as many network calls: without it in twice the steps or, where it
    is baked, with it in half of them and in as many.
    """
    own = config.budgets or (len(config.chain.times) or config.chain.steps,)
    longer = [(k, config.trained_guidance) for k in config.compare_steps if k not in own]
    others = list[tuple[int, float]]()
    if config.chain.guidance != 1 and config.condition.bake_guidance:
        guided = {half for k in own for half in (max(k // 2, 1), k)}
        others = [(k, config.chain.guidance) for k in sorted(guided)]
    elif config.chain.guidance != 1:
        others = [(2 * k, 1.0) for k in own]
    named = replace(config.chain, times=())
    return [
        *(resolve_chain(replace(named, steps=k, guidance=w), model.denoiser) for k, w in longer),
        *(
            resolve_or_trailing(replace(named, steps=k, guidance=w), model.denoiser)
            for k, w in others
        ),
    ]
