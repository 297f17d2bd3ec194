"""A model measured against real images: what ``mmd-ddm evaluate`` runs.

The generated images are compared with the whole of the real ones. The floor is taken between two
random halves of the same real images, so that no second set is needed. Drawn images, features and
scores are remembered by what they were computed from, so that the same call, or one with a metric
or a space more, computes only what is new.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmd_ddm.config import ChainConfig, check_seed
from mmd_ddm.data.images import ImageSet, load_images, say_skipped
from mmd_ddm.evaluation.measure import Entry, measure, over_seeds, protocol
from mmd_ddm.evaluation.metrics.registry import METRICS, choose_metrics
from mmd_ddm.evaluation.space import Space, describe
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import Model, build_sampler, load_model
from mmd_ddm.jobs.chain import ChainLike, choose_chain, describe_chain
from mmd_ddm.jobs.results import Results
from mmd_ddm.jobs.roles import roles_of_run
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["DEFAULT_SPACES", "evaluate"]

DEFAULT_SPACES = ("efficientnet-lite0", "encoder", "random", "pixels")
_MOST = 3000  # images drawn unless more are asked for


def evaluate(
    model: str | Model,
    data: str | ImageSet,
    chain: ChainLike | Sequence[ChainLike] = (),
    *,
    features: Sequence[str] = (),
    metrics: Sequence[str] = (),
    n: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    resize: bool = False,
    device: str = "auto",
    progress: Progress = silent,
) -> Results:
    """Judge what a model draws, in feature spaces, against real images.

    Args:
        model: a run, folder, hub id or bundled name, or what `load` gave.
        data: real images, by name or loaded.
        chain: to draw with, one or several; by default the model's own, of which
            ``{"steps": 10}`` names what is to differ.
        features: spaces; by default those of the model's run, or `DEFAULT_SPACES`.
        metrics: names of `METRICS`; by default all that the images are enough for.
        n: images to draw; by default as many as there are real ones, up to 3,000.
        seed: of the noise, which no other seed shares.
        seeds: how many, from that one on; more than one gives standard errors over them.
        resize: crop and scale real images of another size.
        device: where to compute, for a model that is named.
        progress: told what is done.

    Raises:
        ValueError: an unknown model, space or metric, too few images, or an impossible chain.
    """
    check_seed(seed)
    model = load_model(model, device)
    denoiser = model.denoiser
    chains = [chain] if isinstance(chain, ChainConfig | Mapping) else [*chain]
    resolved = [choose_chain(model, one) for one in chains or (None,)]
    if isinstance(data, str):
        data = load_images(data, denoiser.shape, resize=resize)
    say_skipped(progress, data)
    n = min(len(data), _MOST) if n is None else n
    spaces = _spaces(model, data, features, metrics, n)
    for one in resolved:
        progress.say(f"{n} images in {describe_chain(model, one)}")
    about = describe(spaces, progress)
    name, rows = "base" if model.chain is None else "finetuned", []
    for one in resolved:
        entry = Entry(name, model.name, one, build_sampler(one, denoiser))
        with progress.bar(f"{len(one.times)} steps", n * seeds) as bar:
            found = [measure(entry, spaces, n, seed + i, bar) for i in range(seeds)]
        rows.append((found[0] if seeds == 1 else over_seeds(found)).row)
    used = [metric for metric in METRICS if any(metric in space.metrics for space in spaces)]
    half = len(data) // 2
    floor = f"two random halves of the real images, {half} and {len(data) - half}"
    record = {
        "protocol": {**protocol(data, n, seed, used), "floor": floor},
        "spaces": about,
        "rows": rows,
    }
    return Results(record)


def _spaces(
    model: Model, data: ImageSet, features: Sequence[str], metrics: Sequence[str], n: int
) -> list[Space]:
    if n < 2 or len(data) < 4:
        raise ValueError(
            f"at least 2 drawn and 4 real images are needed; got -n {n} and {len(data)} in "
            f"{data.source}"
        )
    of_run = roles_of_run(Path(model.name))
    # Of a finetuned model without its run, nobody knows what it was optimised in.
    otherwise = "held-out" if of_run or model.chain is None else "unknown"
    names = dict.fromkeys(features or of_run or DEFAULT_SPACES)
    device = model.denoiser.device
    phis = [make_features(name, model.denoiser.shape[0]).to(device) for name in names]
    chosen = choose_metrics(metrics, phis, min(n, len(data) // 2))
    return [
        Space(name, of_run.get(name, otherwise), phi, data, metrics=measured, device=device)
        for name, phi, measured in zip(names, phis, chosen, strict=True)
    ]
