"""Methods that train, at equal compute: what ``mmd-ddm shootout`` runs.

Every training of a number of steps may take as many forward passes of the network on one image,
teacher and critic included (`mmd_ddm.training.losses.base.Cost`). Each method tries the same rates
with the first seed, and goes on with the one whose KID is least in a space that is neither
optimised nor the judge. Each row has its difference from the best chain that needs no training
and takes no more network calls, over the same noise and real images; it is chosen by the judge,
which favours it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.data.images import load_images
from mmd_ddm.evaluation.measure import Entry, Measured, measure
from mmd_ddm.evaluation.paired import above
from mmd_ddm.evaluation.space import Space
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import Model, build_sampler, load_model, resolve_chain
from mmd_ddm.jobs.recipe import complete
from mmd_ddm.jobs.results import Results
from mmd_ddm.jobs.teacher import teacher_of
from mmd_ddm.jobs.train import train
from mmd_ddm.runs.files import check_writable
from mmd_ddm.runs.fingerprint import key_of
from mmd_ddm.runs.folder import read_events
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.settings import from_mapping
from mmd_ddm.training.finetune import walked_cost
from mmd_ddm.training.losses.base import Cost
from mmd_ddm.training.losses.registry import METHODS

__all__ = ["Shootout", "shootout"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Shootout:
    """What is compared, as a TOML file says it (``presets/shootout.toml``).

    Attributes:
        model: the base.
        data: images to train with.
        heldout: images to judge by.
        judge: space that decides; no method may optimise it.
        select: space by which a rate is chosen.
        spaces: others to judge in.
        steps: the numbers K.
        forwards: passes forward that a training may take.
        seeds: of training and judgement, how many.
        samples: images a row.
        rates: of learning, tried by every method.
        settings: of `FinetuneConfig`, under those of a method.
        free: chains that need no training: a name, `ChainConfig`'s settings and, where it is not
            for every K, ``steps``.
        methods: a name, settings of `FinetuneConfig`, and ``steps`` likewise.
    """

    model: str
    data: str
    heldout: str
    judge: str
    select: str
    spaces: tuple[str, ...] = ()
    steps: tuple[int, ...] = (5,)
    forwards: int = 28_800
    seeds: int = 3
    samples: int = 1000
    rates: tuple[float, ...] = (1e-5, 2.5e-5, 1e-4)
    settings: dict = field(default_factory=dict)
    free: tuple[dict, ...] = ()
    methods: tuple[dict, ...] = ()


def shootout(plan: Shootout, out: Path, progress: Progress = silent) -> Results:
    """Make every row that ``out`` lacks; its ``rows.jsonl`` grows by one as each is done.

    Args:
        plan: what is compared.
        out: the folder; the runs lie beside the rows.
        progress: told what is done.

    Raises:
        ValueError: settings that cannot be, or passes that pay for no iteration.
    """
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    made = _Rows(plan, out, progress)
    seeds = range(plan.seeds)
    for k in plan.steps:
        free = [one for one in plan.free if k in one.get("steps", plan.steps)]
        own = [one for one in plan.methods if k in one.get("steps", plan.steps)]
        jobs = [made.job(one, k) for one in own]  # or say now what cannot be
        of_free = {one["name"]: [made.free(one, k, seed) for seed in seeds] for one in free}
        within = {name: rows for name, rows in of_free.items() if rows[0]["nfe"] <= k}
        best = min(within, key=lambda name: mean(_kid(row, plan.judge) for row in within[name]))
        like = next(one for one in free if one["name"] == best)
        for job in jobs:
            first = [made.trained(job, rate, 0, like) for rate in plan.rates]
            best_rate = min(first, key=lambda row: _kid(row, plan.select))["rate"]
            for seed in seeds[1:]:
                made.trained(job, best_rate, seed, like)
    return Results({"rows": made.asked}, out)


@dataclass(frozen=True)
class _Job:
    name: str
    plan: str  # of all that is said of it but rate, seed and passes, a hash
    config: FinetuneConfig
    cost: Cost


class _Rows:
    """The rows so far, those that this plan asks for, and what makes more of them."""

    def __init__(self, plan: Shootout, out: Path, progress: Progress) -> None:
        self.plan, self.out, self._progress = plan, out, progress
        path = out / "rows.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.asked: list[Row] = []
        self._rows: list[Row] = [json.loads(line) for line in lines]

    def free(self, one: Mapping[str, Any], k: int, seed: int) -> Row:
        """Of a chain of the base."""
        key, chain = self._key(one["name"], k, seed, self._hash(one)), self.chain(one, k)
        return self._made(key, lambda: self._row(self._judged(self._base, chain, seed)))

    def chain(self, one: Mapping[str, Any], k: int) -> ChainConfig:
        """Of an entry of ``free``."""
        own = {key: value for key, value in one.items() if key not in ("name", "steps")}
        return resolve_chain(from_mapping(ChainConfig, {"steps": k, **own}), self._base.denoiser)

    def trained(self, job: _Job, rate: float, seed: int, like: Mapping[str, Any]) -> Row:
        """Of a method with a rate, above the chain ``like``."""
        k, config = job.config.chain.steps, replace(job.config, lr=rate, seed=seed)
        words = f"{job.name}-{k}-{self.plan.forwards}-{rate:g}-{seed}-{job.plan}"
        run = self.out / "runs" / words.replace(", ", "-").replace(" ", "-")

        def make() -> Row:
            train(config, run, self._progress)
            seconds = sum(e["seconds"] for e in read_events(run) if e["event"] == "train")
            model = load_model(str(run), "cpu")
            assert model.chain is not None
            found = self._judged(model, model.chain, seed)
            base = self._judged(self._base, self.chain(like, k), seed)
            return {
                **self._row(found),
                "above": like["name"],
                "above_free": above(found.kid, base.kid),
                "cost": {
                    **asdict(job.cost),
                    "each": job.cost.each,
                    "iterations": config.iterations,
                },
                "seconds": seconds,
                "optimised": [*config.optimised],
            }

        key = self._key(job.name, k, seed, job.plan)
        return self._made(key | {"rate": rate, "forwards": self.plan.forwards}, make)

    def job(self, one: Mapping[str, Any], k: int) -> _Job:
        """A method, of as many iterations as it can pay for."""
        plan = self.plan
        own = {key: value for key, value in one.items() if key not in ("name", "steps")}
        steps = {"steps": k, **plan.settings.get("chain", {}), **own.get("chain", {})}
        named = {"model": plan.model, "data": plan.data, "heldout": plan.heldout,
                 "select": {"every": 0, "features": plan.select}, "compare_steps": []}  # fmt: skip
        settings = {**plan.settings, **own, **named, "chain": steps}
        config = from_mapping(FinetuneConfig, complete(settings, self._base))
        if {plan.judge, plan.select} & {*config.optimised}:
            raise ValueError(f"{one['name']} optimises what it is judged or selected by")
        denoiser = self._base.denoiser
        chain = resolve_chain(config.chain, denoiser)
        own_cost = walked_cost(config, build_sampler(chain, denoiser))
        teacher = teacher_of(config, chain, denoiser)
        calls = walked_cost(config, teacher).calls if teacher else 0
        cost = METHODS[config.method].cost(config, own_cost, int(calls))
        n = cost.iterations(plan.forwards, config.batch_size)
        n -= n % (config.progressive.rounds if config.method == "progressive" else 1)
        if n < 1:
            raise ValueError(
                f"forwards = {plan.forwards} pay for no iteration of {one['name']}: one takes "
                f"{cost.each * config.batch_size:g}, after {cost.once}"
            )
        return _Job(one["name"], self._hash(one), replace(config, iterations=n), cost)

    def _key(self, name: str, k: int, seed: int, plan: str) -> Row:
        samples = self.plan.samples
        return {"method": name, "steps": k, "seed": seed, "samples": samples, "plan": plan}

    def _hash(self, one: Mapping[str, Any]) -> str:
        """Of all that decides a row beside its key: other settings make other rows."""
        plan = self.plan
        named = (plan.model, plan.data, plan.heldout, plan.judge, plan.select, *plan.spaces)
        return key_of(one, plan.settings, named)[:8]

    def _made(self, key: Row, make: Callable[[], Row]) -> Row:
        """The row of that key, if it is there."""
        row = next((row for row in self._rows if key.items() <= row.items()), None)
        if row is None:
            row = key | make()
            with (self.out / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self.asked.append(row)
        return row

    def _row(self, found: Measured) -> Row:
        return {key: found.row[key] for key in ("sampler", "times", "nfe", "spaces")}

    def _judged(self, model: Model, chain: ChainConfig, seed: int) -> Measured:
        entry = Entry("", model.name, chain, build_sampler(chain, model.denoiser))
        n = self.plan.samples
        with self._progress.bar(f"{Path(model.name).name}, {len(chain.times)} steps", n) as bar:
            return measure(entry, self._spaces, n, seed, bar)

    @cached_property
    def _base(self) -> Model:
        return load_model(self.plan.model, "cpu")

    @cached_property
    def _spaces(self) -> list[Space]:
        plan, shape = self.plan, self._base.denoiser.shape
        real = load_images(plan.heldout, shape)
        return [
            Space(name, "held-out", make_features(name, shape[0]), real)
            for name in (plan.judge, plan.select, *plan.spaces)
        ]


def _kid(row: Row, space: str) -> float:
    return float(row["spaces"][space]["kid"])
