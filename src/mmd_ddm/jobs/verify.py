"""What a run recorded against what is found now: the work of ``mmd-ddm verify``."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.config import ChainConfig, PretrainConfig
from mmd_ddm.data.images import Split
from mmd_ddm.evaluation.measure import Measured
from mmd_ddm.evaluation.scores import ABOVE, ABOVE_FEWER, row_label, without_errors
from mmd_ddm.evaluation.space import Space, describe
from mmd_ddm.evaluation.verdict import verdict
from mmd_ddm.jobs.build import (
    Model,
    build_data,
    build_device,
    load_model,
    name_null_label,
    resolve_chains,
)
from mmd_ddm.jobs.judge import compare_to_base, judge_chain, judge_spaces, other_budgets
from mmd_ddm.jobs.origin import Origin, recorded_place
from mmd_ddm.jobs.pretrain import base_images
from mmd_ddm.jobs.roles import roles_of
from mmd_ddm.jobs.train import longer_chains
from mmd_ddm.runs.cache_folder import afresh
from mmd_ddm.runs.files import read_json
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import read_events
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.settings import from_mapping

__all__ = ["Check", "verify"]

# What was recorded, and how it is found again.
_Part = tuple[Mapping[str, Any], Callable[[], Mapping[str, Any]]]
_MISSING = "nothing"
_TOLERANCE = 1e-3  # of a score, where another machine has rounded a pixel the other way


@dataclass(frozen=True)
class Check:
    """One thing that was recorded.

    Attributes:
        name: of the thing.
        recorded: then.
        found: now, or why it cannot be found.
        verdict: holds, differs or unchecked.
    """

    name: str
    recorded: str
    found: str
    verdict: str


def verify(run: str | Path, device: str = "auto", *, progress: Progress = silent) -> list[Check]:
    """Recompute what can be recomputed, from nothing that is remembered.

    Args:
        run: a finished run of finetune or pretrain.
        device: where to compute.
        progress: told what is done.

    Raises:
        ValueError: no such run.
    """
    run = Path(run)
    about = read_json(run / "run.json")
    kinds = {"finetune": _finetune, "pretrain": _pretrain}
    if about.get("verb") not in kinds:
        raise ValueError(f"{run} is a run of {about.get('verb')}; give one of {', '.join(kinds)}")
    done = [event for event in read_events(run) if event.get("event") == "done"]
    if not done:
        raise ValueError(f"{run} is not finished: repeat its command first")
    recorded = {**about.get("inputs", {}), **done[-1]}
    parts = kinds[about["verb"]](run, about, recorded, build_device(device))
    checks: list[Check] = []
    with afresh(), progress.bar("checks", len(parts)) as bar:
        for then, compute in parts:
            bar(note=next(iter(then), ""))
            checks += _compare(then, compute)
            bar(advance=1)
    return checks


def _pretrain(
    run: Path, about: dict[str, Any], recorded: Mapping[str, Any], device: torch.device
) -> list[_Part]:
    config = from_mapping(PretrainConfig, about["settings"])
    config = replace(config, data=recorded_place(config.data, Path(about.get("folder", ""))))
    weights = "weights_sha256"
    return [
        (
            _of_images(recorded),
            lambda: base_images(config).hashes("data"),
        ),
        (
            {weights: recorded.get(weights)},
            lambda: {weights: weights_sha256(load_model(str(run)).denoiser.network)},
        ),
    ]


def _finetune(
    run: Path, about: dict[str, Any], recorded: Mapping[str, Any], device: torch.device
) -> list[_Part]:
    finetuned = _Finetuned(run, device)
    told = finetuned.results.get("verdict", {}).get("label")

    def then(*names: str) -> dict[str, Any]:
        return {name: recorded.get(name) for name in names}

    return [
        (then("model_sha256"), finetuned.base_weights),
        (_of_images(recorded), lambda: finetuned.split.hashes),
        (then("weights_sha256", "samples_sha256"), finetuned.made),
        (_about_spaces(finetuned.results["spaces"]), finetuned.spaces_again),
        (_scores_of(finetuned.results["rows"], "finetuned"), finetuned.after_again),
        (_against_base(finetuned.results, told), finetuned.comparison_again),
    ]


def _of_images(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The hashes of images and of what is said of them, by name."""
    named = r"(data|heldout|selection)(_labels|_captions)?_sha256"
    return {name: recorded[name] for name in sorted(recorded) if re.fullmatch(named, name)}


class _Finetuned:
    """A finetuning, each part computed again when it is asked for."""

    def __init__(self, run: Path, device: torch.device) -> None:
        origin = Origin.read(run)
        assert origin is not None, "its verb was read before"
        self.origin, self.config = origin, origin.config
        self.device = device
        self.results = read_json(run / "results.json")
        self.model = self._load(str(run))

    def _load(self, name: str) -> Model:
        model = load_model(name, self.device, self.config.precision)
        name_null_label(model.denoiser, self.config.condition.null_label)
        model.denoiser.use_fast_layout()  # as in the run: layouts round differently
        return model

    @cached_property
    def base(self) -> Model:
        model = self._load(self.config.model)
        model.denoiser.hold(self.config.trained_weights)
        return model

    @cached_property
    def split(self) -> Split:
        shape = self.model.denoiser.shape
        return build_data(
            self.config, shape, labels=self.origin.labelled, captions=self.origin.captioned
        )

    @cached_property
    def spaces(self) -> list[Space]:
        channels = self.model.denoiser.shape[0]
        phis = {
            name: self.origin.features(name, channels).to(self.device)
            for name in roles_of(self.config)
        }
        return judge_spaces(self.config, phis, self.split, self.device)

    @cached_property
    def after(self) -> list[Measured]:
        learned = self.model.chain if self.config.trained_numbers else None
        chain, *others = self.chains
        return [self._judged("finetuned", self.model, one) for one in (learned or chain, *others)]

    @property
    def chains(self) -> list[ChainConfig]:
        chain, budgets = resolve_chains(self.config, self.model.denoiser)
        return [chain, *other_budgets(chain, budgets)]

    def _judged(self, name: str, model: Model, chain: ChainConfig) -> Measured:
        return judge_chain(name, model, chain, self.spaces, self.config, silent)

    def base_weights(self) -> dict[str, Any]:
        return {"model_sha256": self.base.denoiser.sha256}

    def made(self) -> dict[str, Any]:
        return {
            "weights_sha256": weights_sha256(self.model.denoiser.network),
            "samples_sha256": self.after[0].images.sha256,
        }

    @cached_property
    def about(self) -> dict[str, Any]:
        return describe(self.spaces, silent)

    def spaces_again(self) -> dict[str, Any]:
        return _about_spaces(self.about)

    def after_again(self) -> dict[str, Any]:
        return _scores_of([one.row for one in self.after], "finetuned")

    def comparison_again(self) -> dict[str, Any]:
        chains = [*self.chains, *longer_chains(self.config, self.base)]
        before = [self._judged("base", self.base, chain) for chain in chains]
        compared = compare_to_base(before, self.after, self.spaces)
        found = {**self.results, "spaces": self.about, **compared}
        return _against_base(found, verdict(found).label)


def _about_spaces(spaces: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Role, weights and floor of every space."""
    found: dict[str, Any] = {}
    for name, about in spaces.items():
        found |= {
            f"{name} weights": about["sha256"],
            f"{name} role": about["role"],
            f"{name} floor": _Scores(about["floor"]),
        }
    return found


def _scores_of(rows: Sequence[dict[str, Any]], name: str, key: str = "spaces") -> dict[str, Any]:
    """The numbers of these rows by space; a base row is named by its steps."""
    return {
        f"{row_label(row)}: {space}": _Scores(scores)
        for row in rows
        if row["name"] == name
        for space, scores in (row.get(key) or {}).items()
    }


def _against_base(results: Mapping[str, Any], label: str | None) -> dict[str, Any]:
    """The rows of the base, how far they lie above, and what follows."""
    higher = _scores_of(results["rows"], "base", ABOVE)
    fewer = _scores_of(results["rows"], "finetuned", ABOVE_FEWER)
    return {
        **_scores_of(results["rows"], "base"),
        **{f"{name}, above finetuned": scores for name, scores in higher.items()},
        **{f"{name}, above fewer steps": scores for name, scores in fewer.items()},
        "speedup": results.get("speedup"),
        "verdict": label,
    }


@dataclass(frozen=True)
class _Scores:
    """Numbers of one row in one space, each with its error where it has one."""

    values: Mapping[str, float]

    def __str__(self) -> str:
        parts = []
        for name in without_errors(self.values):
            error = self.values.get(f"{name}_se")
            parts.append(f"{name} {self.values[name]:.5g}" + (f" ± {error:.3g}" if error else ""))
        return ", ".join(parts)

    def near(self, other: "_Scores") -> bool:
        """To a thousandth, or to a thousandth of the error, which is nothing near zero."""
        return self.values.keys() == other.values.keys() and all(
            abs(value - self.values[name])
            <= _TOLERANCE * max(abs(value), other.values.get(f"{name}_se", 0.0))
            for name, value in other.values.items()
        )


def _compare(recorded: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> list[Check]:
    """A check a name; what is missing differs, what cannot be computed any more does not."""
    try:
        found = compute()
    except (ValueError, OSError) as error:
        return [Check(name, str(then), str(error), "unchecked") for name, then in recorded.items()]
    return [
        Check(name, str(then), str(now), _verdict(then, now))
        for name in dict.fromkeys([*recorded, *found])
        for then, now in [(recorded.get(name, _MISSING), found.get(name, _MISSING))]
    ]


def _verdict(then: Any, now: Any) -> str:
    same = then == now
    if isinstance(then, _Scores) and isinstance(now, _Scores):
        same = then.near(now)
    return "holds" if same else "differs"
