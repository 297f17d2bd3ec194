"""Models, and sets of images, measured against real ones: what ``mmd-ddm evaluate`` runs.

What is judged is compared with the whole of the real images, of which a finetuned model has seen
none (`mmd_ddm.jobs.real_images`). The floor is taken between two random halves of the same real
images, so that no second set is needed. Drawn images, features and scores are remembered by what
they were computed from, so that the same call, or one with a metric or a space more, computes only
what is new.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmd_ddm.config import ChainConfig, ReadConfig, check_seed
from mmd_ddm.data.images import ImageSet, say_read
from mmd_ddm.evaluation.measure import Entry, measure, over_seeds, protocol
from mmd_ddm.evaluation.metrics.registry import METRICS, choose_metrics
from mmd_ddm.evaluation.space import Space, describe
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import Model, build_device, build_sampler
from mmd_ddm.jobs.chain import ChainLike, choose_chain, describe_chain
from mmd_ddm.jobs.origin import origins
from mmd_ddm.jobs.real_images import choose_real
from mmd_ddm.jobs.results import Results
from mmd_ddm.jobs.roles import roles_of, roles_to_runs
from mmd_ddm.jobs.sources import load_sources, shape_of
from mmd_ddm.runs.progress import Progress, silent

__all__ = ["DEFAULT_SPACES", "evaluate"]

DEFAULT_SPACES = ("efficientnet-lite0", "encoder", "random", "pixels")
_MOST = 3000  # images judged unless more are asked for
_Plan = ImageSet | tuple[Model, ChainConfig]  # what becomes a row


def evaluate(
    sources: Any,
    data: str | ImageSet | None = None,
    chain: ChainLike | Sequence[ChainLike] = (),
    *,
    features: Sequence[str] = (),
    metrics: Sequence[str] = (),
    n: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    read: ReadConfig | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Results:
    """Judge what models draw, and images from anything, in feature spaces, against real images.

    Args:
        sources: one or a list: a model's run, folder, hub id or bundled name, a folder or file of
            images, or what `load` or `images` gave. A model has a row a chain, images have one.
        data: real images, by name or loaded; by default those that the model's run held out.
            Those that it matched or selected by are left out.
        chain: to draw with, one or several; by default the model's own, of which
            ``{"steps": 10}`` names what is to differ.
        features: spaces; by default those of the models' runs, or `DEFAULT_SPACES`.
        metrics: names of `METRICS`; by default all that the images are enough for.
        n: images to draw, or to take of a set; by default as many as there are real ones, and in
            the smallest set, up to 3,000.
        seed: of the noise, which no other seed shares.
        seeds: how many, from that one on; more than one gives standard errors over them.
        read: how images that are named are read.
        device: where to compute, for what is named.
        progress: told what is done.

    Raises:
        ValueError: what is neither model nor images, an unknown space or metric, too few images,
            or an impossible chain.
    """
    check_seed(seed)
    read = read or ReadConfig()
    listed = isinstance(sources, list | tuple)
    found = load_sources(sources if listed else [sources], device, read)
    models = [one for one in found if isinstance(one, Model)]
    sets = [one for one in found if isinstance(one, ImageSet)]
    chains = [chain] if isinstance(chain, ChainConfig | Mapping) else [*chain]
    if not models:
        _refuse_to_draw(sets[0], chains, seed, seeds)
    plans = [plan for one in found for plan in _plans(one, chains)]
    runs, shape = origins(models), shape_of(found[0])
    real = choose_real(data, runs, shape, read, progress, models)
    say_read(progress, *sets)
    n = min(len(real.images), _MOST, *map(len, sets)) if n is None else n
    _check_counts(n, real.images, sets)
    place = models[0].denoiser.device if models else build_device(device)
    makers = {
        name: origin.features
        for origin in runs.values()
        if origin and not features
        for name in roles_of(origin.config)
    } or dict.fromkeys(features or DEFAULT_SPACES, make_features)
    phis = {name: make(name, shape[0]).to(place) for name, make in makers.items()}
    # Of images from anything, nobody knows what their model was optimised in.
    roles = roles_to_runs(phis, runs, shape[0], otherwise="unknown" if sets else real.otherwise)
    chosen = choose_metrics(metrics, [*phis.values()], min(n, len(real.images) // 2))
    spaces = [
        Space(name, roles[name], phi, real.images, metrics=measured, device=place)
        for (name, phi), measured in zip(phis.items(), chosen, strict=True)
    ]
    for plan in plans:
        progress.say(_describe(plan, n))
    about = describe(spaces, progress)
    rows = [_row(plan, spaces, n, range(seed, seed + seeds), progress) for plan in plans]
    measured_by = [metric for metric in METRICS if any(metric in s.metrics for s in spaces)]
    half = len(real.images) // 2
    floor = f"two random halves of the real images, {half} and {len(real.images) - half}"
    told = {**protocol(real.images, n, seed, measured_by), **real.protocol, "floor": floor}
    if not models:
        del told["seed"], told["noise"]
    return Results({"protocol": told, "spaces": about, "rows": rows})


def _refuse_to_draw(images: ImageSet, chains: Sequence[ChainLike], seed: int, seeds: int) -> None:
    asked = any(isinstance(c, ChainConfig) or {*c.values()} - {None} for c in chains)
    if asked or seed or seeds > 1:
        raise ValueError(
            f"{images.source} holds images: only a model draws with a chain and a seed; leave out "
            "--steps, --seed and their like"
        )


def _plans(source: Model | ImageSet, chains: Sequence[ChainLike]) -> list[_Plan]:
    if isinstance(source, ImageSet):
        return [source]
    return [(source, choose_chain(source, one)) for one in chains or (None,)]


def _check_counts(n: int, real: ImageSet, sets: Sequence[ImageSet]) -> None:
    if n < 2 or len(real) < 4:
        raise ValueError(
            f"at least 2 drawn and 4 real images are needed; got -n {n} and {len(real)} in "
            f"{real.source}"
        )
    for images in sets:
        if len(images) < n:
            raise ValueError(f"{images.source} holds {len(images)} images; -n {n} takes more")


def _describe(plan: _Plan, n: int) -> str:
    if not isinstance(plan, ImageSet):
        return f"{n} images in {describe_chain(*plan)}"
    some = f"{n:,} of the {len(plan):,}, chosen at random," if n < len(plan) else f"all {n:,}"
    return f"{some} images of {plan.source}"


def _row(
    plan: _Plan, spaces: Sequence[Space], n: int, seeds: Sequence[int], progress: Progress
) -> dict[str, Any]:
    if isinstance(plan, ImageSet):
        images = plan.subset(n)
        scores = {space.name: space.scores(images) for space in spaces}
        about = {"name": "images", "model": plan.source, "samples_sha256": images.sha256}
        return {**about, "spaces": scores}
    model, chain = plan
    name = "base" if model.chain is None else "finetuned"
    entry = Entry(name, model.name, chain, build_sampler(chain, model.denoiser))
    with progress.bar(f"{len(chain.times)} steps", n * len(seeds)) as bar:
        found = [measure(entry, spaces, n, seed, bar) for seed in seeds]
    return (found[0] if len(seeds) == 1 else over_seeds(found)).row
