"""The finished model as an ordinary diffusers folder."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.chain_table import ChainTable
from mmd_ddm.models.families.unet2d import CLASSES
from mmd_ddm.models.gamma import gamma_file, gamma_of
from mmd_ddm.models.genie_head import head_folder, head_of
from mmd_ddm.models.parts import name_part, quiet, share_weights
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.models.shipped import scheduling_few_step, unet_equal_heads
from mmd_ddm.runs.files import atomic_folder
from mmd_ddm.runs.fingerprint import weights_sha256

__all__ = ["Budget", "export", "make_pipeline"]

Budget = tuple[Mapping[str, Any], ChainTable | None]  # a chain, and its table

_MAX_SHARD = "15MB"
_TRAINING = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "rescale_betas_zero_snr",
)  # fmt: skip
_NEAR = 1e-5  # of a time: what float32 and a ramp's roots leave


def export(
    denoiser: Denoiser,
    scheduler_config: Mapping[str, Any],
    chain: Mapping[str, Any] | None,
    folder: Path,
    *,
    table: ChainTable | None = None,
    budgets: Sequence[Budget] = (),
    half: bool = False,
) -> None:
    """Write a folder that ``DiffusionPipeline.from_pretrained`` loads.

    A deterministic DDIM chain on times T // K apart (leading, midpoint, and trailing where K
    divides T) is held by diffusers' own `DDIMScheduler`, one of a flow or of EDM on trailing times
    by the schedulers of those. Any other chain gets `FewStepScheduler`
    beside the weights, which refuses every other number of steps, and every chain that is not DDIM
    and has no table: no folder is written that would silently sample on another grid. A network of
    no stock class brings its class along, an analytic sampler its Gamma, and GENIE its head.

    Args:
        denoiser: its network is written as it is.
        scheduler_config: of the base model.
        chain: the chain it was finetuned for, ``ChainConfig`` with its ``times`` filled in; kept
            in ``scheduler_config.json`` under the key ``_mmd_ddm``. None for a base model.
        folder: replaced once the new one is complete.
        table: of the chain, if it has one and is not DDIM.
        budgets: chain and table of every number of steps that it was finetuned for, if there are
            several; ``FewStepScheduler`` draws at each, and at no other.
        half: write float16 weights.
    """
    pipeline = make_pipeline(denoiser, scheduler_config, chain, table, budgets)
    network = denoiser.network
    if half:
        network = copy.deepcopy(network).half()
        pipeline.register_modules(**{denoiser.part: network})
    with atomic_folder(folder) as temporary:
        denoiser.save(pipeline, temporary, max_shard_size=_MAX_SHARD)
        share_weights(temporary)
        if isinstance(pipeline.scheduler, scheduling_few_step.FewStepScheduler):
            _ship(temporary, "scheduler", scheduling_few_step, "FewStepScheduler")
        if isinstance(network, unet_equal_heads.EqualHeadsUNet2DModel):
            _ship(temporary, "unet", unet_equal_heads, "EqualHeadsUNet2DModel")
        if chain is not None and chain["sampler"].startswith("analytic"):
            gamma = gamma_of(denoiser).for_finetuned(weights_sha256(network))
            gamma.save(gamma_file(temporary))
        if chain is not None and chain["sampler"] == "genie-head":
            head_of(denoiser).save(temporary, weights_sha256(network))
        _keep_estimates(folder, temporary)


def _keep_estimates(old: Path, new: Path) -> None:
    """What was estimated of the old model, and names its weights: hours of work, perhaps."""
    for estimate in (gamma_file(old), head_folder(old)) if old.is_dir() else ():
        kept = new / estimate.name
        if estimate.is_file() and not kept.exists():
            shutil.copy(estimate, kept)
        elif estimate.is_dir() and not kept.exists():
            shutil.copytree(estimate, kept)


def make_pipeline(
    denoiser: Denoiser,
    scheduler_config: Mapping[str, Any],
    chain: Mapping[str, Any] | None,
    table: ChainTable | None = None,
    budgets: Sequence[Budget] = (),
) -> Any:
    """The model as a diffusers pipeline; the arguments are those of `export`.

    Raises:
        ValueError: a pipeline that would walk another chain.
    """
    base = scheduler_config.get("process") or scheduler_config
    stock = None if budgets or _guided(denoiser, chain) else denoiser.stock_scheduler(base, chain)
    if stock is not None and chain is not None and not _walks(stock, denoiser, chain):
        stock = None
    if stock is not None or chain is None:
        pipeline = denoiser.pipeline(stock)
    else:
        walks = budgets or [(chain, table)]
        pipeline = denoiser.pipeline(_few_step_scheduler(denoiser, base, chain, walks))
    if denoiser.classes:
        about = {"names": list(denoiser.classes), "null": denoiser.null_label}
        pipeline.scheduler.register_to_config(**{CLASSES: about})
    if chain is not None:
        if stock is not None and not _walks(pipeline.scheduler, denoiser, chain):
            raise ValueError(
                f"{type(pipeline).__name__} rewrites its scheduler, so that it would not walk "
                f"{', '.join(f'{t:g}' for t in chain['times'])}: take other times"
            )
        held = {"budgets": [dict(one) for one, _ in budgets]} if budgets else {}
        pipeline.scheduler.register_to_config(_mmd_ddm={**chain, **held})
    return pipeline


def _guided(denoiser: Denoiser, chain: Mapping[str, Any] | None) -> bool:
    """Whether the chain takes guidance that its pipeline does not give."""
    return chain is not None and chain.get("guidance", 1) != 1 and not denoiser.guides


def _walks(scheduler: Any, denoiser: Denoiser, chain: Mapping[str, Any]) -> bool:
    """Whether diffusers' plain call visits these times."""
    times = chain["times"]
    with quiet():
        denoiser.set_steps(scheduler, len(times))
    told = [float(denoiser.schedule.network_time(t)) for t in times]
    found = [float(t) for t in scheduler.timesteps]
    return len(found) == len(told) and all(map(_near, found, told))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= _NEAR * max(abs(b), 1)


def _few_step_scheduler(
    denoiser: Denoiser,
    config: Mapping[str, Any],
    chain: Mapping[str, Any],
    walks: Sequence[Budget],
) -> scheduling_few_step.FewStepScheduler:
    held = [_held(denoiser, *walk) for walk in walks]
    calls: dict[str, Any] = {"budgets": held} if len(held) > 1 else held[0]
    calls["sampler"] = "ddim" if chain["eta"] == 0 else "stochastic ddim"
    if _guided(denoiser, chain):
        calls = {**calls, "sampler": f"guided {chain['sampler']}"}
    elif chain["sampler"] != "ddim":
        calls["sampler"] = chain["sampler"]
        if chain["sampler"] == "learned":
            calls["table_weights"] = weights_sha256(denoiser.network)
    if not isinstance(denoiser.schedule, NoiseSchedule):
        calls["process"] = dict(config)
        calls["init_noise_sigma"] = denoiser.schedule.start(chain["times"][0])
    return scheduling_few_step.FewStepScheduler(
        prediction_type=denoiser.prediction,
        clip_sample=chain["clip"],
        **calls,
        **denoiser.schedule.preconditioning,
        **{key: config[key] for key in _TRAINING if key in config},
    )


def _held(
    denoiser: Denoiser, chain: Mapping[str, Any], table: ChainTable | None
) -> dict[str, Any]:
    """What the scheduler holds of one number of steps."""
    schedule, times = denoiser.schedule, list(chain["times"])
    held: dict[str, Any] = {"times": times, "alpha_bars": [schedule.abar(t) for t in times]}
    if chain["sampler"] != "ddim" and table is not None:
        times = list(table.times)
        held = {"times": times, "alpha_bars": list(table.alpha_bars), "table": table.rows()}
        held["steps"] = len(chain["times"])
    if not isinstance(schedule, NoiseSchedule):
        told = [float(schedule.network_time(t)) for t in times]
        held |= {"levels": [list(schedule(t)) for t in times], "told": told}
    return held


def _ship(folder: Path, part: str, module: ModuleType, name: str) -> None:
    """Put the source of a part's class beside its config and name it in model_index.json."""
    source = Path(str(module.__file__))
    shutil.copy(source, folder / part / source.name)
    name_part(folder, part, source.stem, name)
