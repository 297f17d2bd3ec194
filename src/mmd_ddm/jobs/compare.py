r"""Which rows a comparison of samplers has, which of them are done, and their mean over seeds.

A row is one chain of one network, drawn from one seed. Every row of a table has the same images
to be compared with and starts from the same noise: image i of seed s is drawn from the generator
of s * `SEED_STRIDE` + i. A finished row is kept in a file of one JSON object a line, under a key
that holds all that decides its numbers: the hash of the weights, the sampler, its steps and
times, eta, clip and the seed. The same command again draws only what is missing.

Over S seeds a score is the mean, with the standard error sd / sqrt(S); of one seed, a score keeps
the standard error it has.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs.build import Model, build_sampler, resolve_times
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import atomic_write
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.registry import SAMPLERS

__all__ = ["SEED_STRIDE", "Entry", "Ledger", "choose_samplers", "over_seeds", "plan"]

SEED_STRIDE = 1_000_000
# Name, model, hash of its weights, chain and sampler of a row, whatever its seed.
_Walk = tuple[str, Model, str, ChainConfig, Sampler]
# Other names of DDIM at eta 0.
_DUPLICATES = ("fastdpm-step", "dpm-solver-1")
# Ancestral sampling as its authors do it; the others as theirs do, without.
_CLIPPED = ("ddpm-small", "ddpm-large", "analytic-dpm", "analytic-ddim")
_KEY = ("weights", "sampler", "steps", "times", "eta", "clip", "seed")


@dataclass(frozen=True)
class Entry:
    """One row to be.

    Attributes:
        name: ``base`` or ``finetuned``.
        model: whose network is asked.
        weights: hash of that network.
        chain: with its times.
        sampler: the chain, ready to draw.
        seed: s.
    """

    name: str
    model: Model
    weights: str
    chain: ChainConfig
    sampler: Sampler
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the row's numbers. Its steps are K, whatever the sampler makes of them."""
        return {
            "weights": self.weights,
            "sampler": self.chain.sampler,
            "steps": self.chain.steps,
            "times": list(self.sampler.times),
            "eta": self.chain.eta,
            "clip": self.chain.clip,
            "seed": self.seed,
        }


class Ledger:
    """The finished rows, in a file that is whole at any moment.

    Args:
        path: of the file, one JSON object a line.

    Raises:
        ValueError: the file is no such ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[str, Any]] = {}
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        try:
            rows = [json.loads(line) for line in text.splitlines()]
            self._rows = {_key(row): row for row in rows}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it or give a new folder") from (
                error
            )

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that are not finished; one of each, where a run has the base's own weights."""
        unique = {_key(entry.identity): entry for entry in entries}
        return [entry for key, entry in unique.items() if key not in self._rows]

    def add(self, row: dict[str, Any]) -> None:
        """Keep a finished row."""
        self._rows[_key(row)] = row
        lines = "".join(json.dumps(row) + "\n" for row in self._rows.values())
        with atomic_write(self._path) as file:
            file.write(lines.encode())

    def rows(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        """The finished ones of these rows, in their order, under the names they have now."""
        return [
            {
                **self._rows[_key(entry.identity)],
                "name": entry.name,
                "model": entry.model.name,
                "spacing": entry.chain.spacing,
            }
            for entry in entries
            if _key(entry.identity) in self._rows
        ]


def choose_samplers(names: Sequence[str]) -> list[str]:
    """The samplers of these names; ``all`` is every one that is not another's double.

    Raises:
        ValueError: an unknown name.
    """
    if list(names) == ["all"]:
        return [name for name in SAMPLERS if name not in _DUPLICATES]
    for name in names:
        if name not in SAMPLERS:
            raise ValueError(f"unknown sampler {name!r}; choose all, or of {', '.join(SAMPLERS)}")
    return list(names)


def plan(
    base: Model,
    runs: Sequence[Model],
    samplers: Sequence[str],
    spacings: Sequence[str],
    steps: Sequence[int],
    seeds: int,
    times: Sequence[float] = (),
) -> tuple[list[Entry], list[str]]:
    """All rows, and a note for each sampler that cannot walk some of its chains.

    Finetuned runs come first, each on its own chain. Where two spacings give a sampler the same
    times, it has one row.

    Args:
        base: walked by every sampler.
        runs: finetuned models.
        samplers: names, or ``all``, of which those that cannot walk are left out.
        spacings: names.
        steps: the numbers K.
        seeds: how many.
        times: a custom list, walked as well.

    Raises:
        ValueError: a run that is no finetuned model or draws other images than the base; an
            unknown sampler or spacing; K or times that no chain can have; a sampler asked for by
            name that can walk none of its chains; nothing to do.
    """
    walks: list[_Walk] = []
    for run in runs:
        chain = _own_chain(run, base)
        walks.append(
            ("finetuned", run, weights_sha256(run.denoiser.network), chain,
             build_sampler(chain, run.denoiser))
        )  # fmt: skip
    chains = _chains(base, choose_samplers(samplers), spacings, steps, times)
    walked, notes = _walk_base(base, chains)
    walks += walked
    able = {chain.sampler for *_, chain, _ in walked}
    for name, note in notes:
        if name in samplers and name not in able:
            raise ValueError(f"{note} (in none of the chains asked for)")
    if not walks:
        raise ValueError(f"nothing to compare: {notes[0][1] if notes else 'no sampler, no run'}")
    entries: dict[tuple[str, str, str], Entry] = {}
    for seed in range(seeds):
        for walk in walks:
            entry = Entry(*walk, seed=seed)
            entries.setdefault((entry.name, entry.model.name, _key(entry.identity)), entry)
    return list(entries.values()), [note for _, note in notes]


def _walk_base(
    base: Model, chains: Sequence[ChainConfig]
) -> tuple[list[_Walk], list[tuple[str, str]]]:
    """The chains as samplers, and the name and fault of each that cannot be one."""
    weights, walks = weights_sha256(base.denoiser.network), list[_Walk]()
    faults: dict[tuple[str, str], dict[int, None]] = {}
    for chain in chains:
        try:
            walks.append(("base", base, weights, chain, build_sampler(chain, base.denoiser)))
        except ValueError as error:
            faults.setdefault((chain.sampler, str(error)), {})[chain.steps] = None
    return walks, [
        (name, f"left out {name} at {', '.join(map(str, steps))} steps: {fault}")
        for (name, fault), steps in faults.items()
    ]


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a chain: the mean over its seeds, ``fd_se``, ``kid_se`` and ``seeds``, how many."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        of = (row["name"], row["model"], _key({**row, "seed": None}))
        groups.setdefault(of, []).append(row)
    merged = []
    for group in groups.values():
        first = {key: value for key, value in group[0].items() if key != "seed"}
        speed = mean(row["images_per_second"] for row in group)
        spaces = {
            space: _mean_scores([row["spaces"][space] for row in group])
            for space in first["spaces"]
        }
        merged.append(
            {**first, "seeds": len(group), "images_per_second": round(speed, 2), "spaces": spaces}
        )
    return merged


def _mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(scores) == 1:
        return dict(scores[0])
    merged = {}
    for metric in ("fd", "kid"):
        values = [score[metric] for score in scores]
        merged[metric] = mean(values)
        merged[f"{metric}_se"] = stdev(values) / len(values) ** 0.5
    return merged


def _own_chain(run: Model, base: Model) -> ChainConfig:
    if run.chain is None:
        raise ValueError(f"{run.name} is not a finetuned model; give the folder of a finetune run")
    if run.denoiser.shape != base.denoiser.shape:
        ours, theirs = (
            "x".join(map(str, model.denoiser.shape[1:]))
            + f" with {model.denoiser.shape[0]} channels"
            for model in (base, run)
        )
        raise ValueError(f"{run.name} draws {theirs}, but {base.name} draws {ours}")
    return resolve_times(run.chain, run.denoiser.schedule)


def _chains(
    base: Model,
    samplers: Sequence[str],
    spacings: Sequence[str],
    steps: Sequence[int],
    times: Sequence[float],
) -> list[ChainConfig]:
    asked: list[list[tuple[int, str, tuple[float, ...]]]]
    asked = [[(k, spacing, ()) for spacing in spacings] for k in steps]
    if times:
        asked.append([(len(times), "custom", tuple(times))])
    return [
        resolve_times(
            ChainConfig(k, sampler, spacing, custom, clip=sampler in _CLIPPED),
            base.denoiser.schedule,
        )
        for group in asked
        for sampler in samplers
        for k, spacing, custom in group
    ]


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps([row[key] for key in _KEY])
