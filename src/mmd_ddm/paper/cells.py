"""The cells of a preset: which chains of which networks it needs, and what they cost."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.paper.presets import Experiment, Preset, Row, load_experiment
from mmd_ddm.settings import from_mapping, override, to_mapping

__all__ = [
    "Cell",
    "Choice",
    "Key",
    "describe",
    "is_finished",
    "lay_out",
    "minutes",
    "spatial",
    "with_classes",
]

# Settings that do not decide a number, or do so through the images, of which hashes are kept.
_IDLE = {
    "save_every", "keep", "keep_checkpoint", "compare_steps", "device", "recompute", "micro_batch",
    "background", "skip_damaged", "recipe", "budgets",
}  # fmt: skip
# Plain network calls a step, where that is far from one: half of GENIE's carry derivatives.
_CALLS = {"genie": 4}
_CLASSES = ("inception", "efficientnet-lite0")
Key = tuple[str, str, int, int]  # experiment, row, steps, seed


@dataclass(frozen=True)
class Choice:
    """What a person asks for, beside the presets.

    Attributes:
        bundled: every experiment on the bundled model and images.
        own: settings of ``model``, ``data`` and so on, for every experiment.
        spaces: other spaces in place of ``inception`` and ``clip``.
        steps: only these K; empty is all.
        seeds: how many of each cell.
    """

    bundled: bool = False
    own: Sequence[str] = ()
    spaces: tuple[tuple[str, str], ...] = ()
    steps: tuple[int, ...] = ()
    seeds: int = 1

    @classmethod
    def of(
        cls,
        named: Mapping[str, str | None],
        settings: Sequence[str],
        *,
        bundled: bool,
        spaces: Mapping[str, str | None],
        steps: Sequence[int],
        seeds: int,
    ) -> "Choice":
        """As the words of a command line say.

        Args:
            named: model, data and heldout; None where nothing was said.
            settings: ``key=value``, of a finetuning.
            bundled: as in `Choice`.
            spaces: in place of ``inception`` and ``clip``, by these names.
            steps: as in `Choice`.
            seeds: likewise.

        Raises:
            ValueError: images without a model, or a model without images.
        """
        model, data, heldout = (named[key] for key in ("model", "data", "heldout"))
        if (data or heldout) and not model:
            raise ValueError("--data and --heldout are for a model of yours: give --model as well")
        if model and (bundled or not data):
            raise ValueError("--model needs --data, and not --bundled")
        own = [f"{key}={json.dumps(value or '')}" for key, value in named.items() if model]
        chosen = tuple((word, name) for word, name in spaces.items() if name)
        return cls(bundled, [*own, *settings], chosen, tuple(steps), seeds)

    @property
    def one_model(self) -> bool:
        """Whether all parts of a preset are the same model."""
        return self.bundled or any(setting.startswith("model=") for setting in self.own)

    def experiments(self, preset: Preset) -> dict[str, Experiment]:
        """Those that the preset is made for, by name; one model has one set of settings."""
        parts: tuple[str, ...] = preset.parts
        if self.one_model:
            parts = ("bundled",) if self.bundled else ("cifar10",)
        return {part: load_experiment(part) for part in parts}


@dataclass(frozen=True)
class Cell:
    """One chain of one network, judged once.

    Attributes:
        config: of the finetuning; a base cell uses its model, data, chain and judges.
        trained: finetuned, or the base.
        real: ``matched`` or ``heldout``: the images that it is compared with.
        spaces: where it is judged: what stands for inception, for clip, and the held-out ones.
    """

    config: FinetuneConfig
    trained: bool
    real: str
    spaces: tuple[str, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the numbers."""
        settings = to_mapping(self.config)
        kept = settings.keys() - _IDLE
        if not self.trained:
            kept &= {"model", "data", "heldout", "resize", "chain", "judge_samples", "seed",
                     "precision"}  # fmt: skip
        # One set of spaces, whichever of them this cell matches.
        about = {key: settings[key] for key in sorted(kept - {"judges"})}
        return {**about, "real": self.real, "spaces": list(self.spaces)}

    @property
    def name(self) -> str:
        """Of its folder: words for people, and a hash of the identity."""
        text = json.dumps(self.identity, sort_keys=True)
        words = [self.config.chain.sampler, str(self.config.chain.steps)]
        if self.trained:
            words += [
                self.config.objective.features[0].split(":")[0],
                self.config.objective.kernel.replace(":", "-"),
            ]
        return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:10]])

    def describe(self) -> str:
        """What is done for it, in a few words."""
        c = self.config
        drawn = f"{c.judge_samples:,} images of {c.chain.sampler} at {c.chain.spacing} times"
        if not self.trained:
            return f"the base, {drawn}"
        return (
            f"finetuned {c.iterations} x {c.batch_size} in {c.objective.features[0]}, "
            f"{c.objective.kernel}, {drawn}"
        )

    def setting(self, words: str) -> str:
        """``key = value`` if that is a setting of the finetuning, else the words themselves."""
        value: Any = to_mapping(self.config)
        for key in words.split("."):
            if not isinstance(value, dict) or key not in value:
                return words
            value = value[key]
        return f"{words} = {value}"


def with_classes(cell: Cell) -> str:
    """Where the inception score is taken: in Inception, or what has classes in its place."""
    kinds = {name: name.partition(":")[0] for name in cell.spaces}  # inception:PATH as well
    return next((name for name, kind in kinds.items() if kind in _CLASSES), cell.spaces[0])


def spatial(cell: Cell) -> str:
    """The name of the space, if there is one, in which FD is sFID."""
    return f"{with_classes(cell)}-spatial"


def lay_out(preset: Preset, choice: Choice) -> dict[Key, Cell]:
    """Every cell of the preset by its place; places may share a cell.

    Raises:
        ValueError: settings that do not exist or cannot be.
    """
    steps = [k for k in preset.steps if not choice.steps or k in choice.steps]
    return {
        (name, label, k, seed): _cell(experiment, row, k, seed, choice)
        for name, experiment in choice.experiments(preset).items()
        for k in steps
        for label, row in preset.rows.items()
        for seed in range(choice.seeds)
    }


def minutes(cell: Cell, experiment: Experiment) -> float | None:
    """About how long the cell takes; None where nobody has measured."""
    if not experiment.seconds:
        return None
    config, cost = cell.config, experiment.seconds
    calls = config.chain.steps * _CALLS.get(config.chain.sampler, 1)
    trained = config.iterations * config.batch_size * cost["train"] if cell.trained else 0
    return (calls * (config.judge_samples * cost["draw"] + trained) + cost["judge"]) / 60


def describe(presets: Sequence[Preset], choice: Choice, out: Path) -> Iterator[str]:
    """What would be made there: cells with their settings, hidden settings, the time.

    Headings begin with a line of their own, what is below them with spaces.
    """
    costs: dict[str, float | None] = {}
    examples: dict[str, Cell] = {}
    for preset in presets:
        yield f"\n{preset.name}  {preset.title}"
        cells = lay_out(preset, choice)
        fresh = {cell.name: key for key, cell in cells.items() if cell.name not in costs}
        for (part, label, k, seed), cell in cells.items():
            examples.setdefault(part, cell)
            if fresh.get(cell.name) != (part, label, k, seed):
                continue
            done = is_finished(cell, out)
            costs[cell.name] = 0.0 if done else minutes(cell, load_experiment(part))
            place = f"{label}, {k} steps" + f", seed {seed}" * (choice.seeds > 1)
            yield f"  {place}: {'finished' if done else cell.describe()}"
        shared = len({cell.name for cell in cells.values()}) - len(fresh)
        if shared:
            yield f"  and {shared} cells of the above"
    for part, cell in examples.items():
        experiment = load_experiment(part)
        yield f"\nsettings of {part} ({experiment.title})"
        yield f"  compared with the {cell.real} images; judged in {', '.join(cell.spaces)}"
        for name, (released, ours) in experiment.hidden.items():
            yield f"  {name}: released code: {released}; here: {cell.setting(ours)}"
    known = [cost for cost in costs.values() if cost is not None]
    time = f", about {sum(known):.0f} minutes on two cores" if len(known) == len(costs) else ""
    yield f"\n{len(costs)} cells{time}"


def is_finished(cell: Cell, out: Path) -> bool:
    """Whether the cell's record is there."""
    return (out / "cells" / f"{cell.name}.json").is_file()


def _cell(experiment: Experiment, row: Row, k: int, seed: int, choice: Choice) -> Cell:
    mapping = deepcopy(experiment.finetune)
    mapping |= experiment.by_steps.get(str(k), {})
    spaces = experiment.spaces | dict(choice.spaces)
    matched = row.match or "inception"
    others = [name for word, name in spaces.items() if word != matched]
    mapping["chain"] = {
        "steps": k, "sampler": row.sampler, "clip": row.clip,
        "spacing": experiment.spacings[row.spacing],
    }  # fmt: skip
    mapping["objective"] = {
        **mapping.get("objective", {}), "features": [spaces[matched]], "kernel": row.kernel,
    }  # fmt: skip
    mapping |= {"seed": seed, "compare_steps": []}
    override(mapping, choice.own)
    for key in ("recipe", "budgets"):
        if key in mapping:
            raise ValueError(f"{key} = {mapping[key]} is for finetune: a preset says its own")
    config = from_mapping(FinetuneConfig, mapping)
    config = replace(config, judges=(*others, *config.judges))
    first, second = config.objective.features[0], config.judges[0]
    if matched == "clip":
        first, second = second, first
    judged = (first, second, *config.judges[1:])
    own_data = any(setting.startswith("data=") for setting in choice.own)
    return Cell(config, bool(row.match), "heldout" if own_data else experiment.real, judged)
