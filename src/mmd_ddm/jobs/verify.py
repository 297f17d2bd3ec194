"""What a run recorded against what is found now: the work of ``mmd-ddm verify``."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmd_ddm.config import FinetuneConfig, PretrainConfig, from_mapping
from mmd_ddm.data.images import ImageSet, Split
from mmd_ddm.evaluation.space import Space
from mmd_ddm.evaluation.verdict import verdict as judge
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_data, build_device, build_sampler, load_model
from mmd_ddm.jobs.pretrain import base_images
from mmd_ddm.runs.cache_folder import afresh
from mmd_ddm.runs.files import read_json
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import read_events
from mmd_ddm.runs.progress import Progress, silent
from mmd_ddm.samplers.draw import draw

__all__ = ["Check", "verify"]

# What was recorded, and how it is found again.
_Part = tuple[Mapping[str, Any], Callable[[], Mapping[str, Any]]]
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
    parts = kinds[about["verb"]](run, about["settings"], recorded, build_device(device))
    checks: list[Check] = []
    with afresh(), progress.bar("checks", len(parts)) as bar:
        for then, compute in parts:
            bar(note=next(iter(then), ""))
            checks += _compare(then, compute)
            bar(advance=1)
    return checks


def _pretrain(
    run: Path, settings: dict[str, Any], recorded: Mapping[str, Any], device: torch.device
) -> list[_Part]:
    config = from_mapping(PretrainConfig, settings)
    found: dict[str, Callable[[], str]] = {
        "data_sha256": lambda: base_images(config).sha256,
        "weights_sha256": lambda: weights_sha256(load_model(str(run)).denoiser.network),
    }
    return [
        ({name: recorded.get(name)}, partial(_named, name, compute))
        for name, compute in found.items()
    ]


def _named(name: str, compute: Callable[[], str]) -> dict[str, str]:
    return {name: compute()}


def _finetune(
    run: Path, settings: dict[str, Any], recorded: Mapping[str, Any], device: torch.device
) -> list[_Part]:
    finetuned = _Finetuned(run, from_mapping(FinetuneConfig, settings), device)
    data = sorted({"data_sha256", "heldout_sha256", "selection_sha256"} & recorded.keys())
    told = finetuned.results.get("verdict", {}).get("label")

    def then(*names: str) -> dict[str, Any]:
        return {name: recorded.get(name) for name in names}

    return [
        (then("model_sha256"), finetuned.base),
        (then(*data), lambda: finetuned.split.hashes),
        (then("weights_sha256", "samples_sha256"), finetuned.made),
        (finetuned.recorded_scores(), finetuned.scores),
        ({"verdict": told}, lambda: {"verdict": judge(finetuned.results).label}),
    ]


class _Finetuned:
    """A finetuning, each part computed again when it is asked for."""

    def __init__(self, run: Path, config: FinetuneConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.results = read_json(run / "results.json")
        self.samples = self.results["protocol"]["samples"]
        self.model = load_model(str(run), device, config.precision)
        self.model.denoiser.use_fast_layout()  # as in the run: layouts round differently

    @cached_property
    def split(self) -> Split:
        return build_data(self.config, self.model.denoiser.shape)

    @cached_property
    def pixels(self) -> Tensor:
        sampler = build_sampler(self.model.chain or self.config.chain, self.model.denoiser)
        return draw(sampler, self.samples, seed=self.config.seed)[0]

    def base(self) -> dict[str, Any]:
        return {"model_sha256": weights_sha256(load_model(self.config.model).denoiser.network)}

    def made(self) -> dict[str, Any]:
        return {
            "weights_sha256": weights_sha256(self.model.denoiser.network),
            "samples_sha256": ImageSet(self.pixels, "samples").sha256,
        }

    def scores(self) -> dict[str, Any]:
        channels, drawn = self.model.denoiser.shape[0], ImageSet(self.pixels, "samples")
        judged, hashes = {}, {}
        for name, about in self.results["spaces"].items():
            phi = make_features(name, channels).to(self.device)
            space = Space(name, about["role"], phi, self.split.heldout, device=self.device)
            judged[name], hashes[name] = space.scores(drawn), phi.sha256
        return _scores(judged, hashes)

    def recorded_scores(self) -> dict[str, Any]:
        (row,) = (row for row in self.results["rows"] if row["name"] == "finetuned")
        hashes = {name: space["sha256"] for name, space in self.results["spaces"].items()}
        return _scores(row["spaces"], hashes)


def _scores(
    spaces: Mapping[str, Mapping[str, float]], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """Every number by space and metric, and the weights of the space."""
    found: dict[str, Any] = {f"{name} weights": sha256 for name, sha256 in hashes.items()}
    for name, scores in spaces.items():
        found |= {f"{name} {metric}": scores[metric] for metric in ("kid", "fd")}
    return found


def _compare(recorded: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> list[Check]:
    """A check a name; what cannot be computed any more, or was not recorded, is no difference."""
    try:
        found = compute()
    except (ValueError, OSError) as error:
        return [Check(name, str(then), str(error), "unchecked") for name, then in recorded.items()]
    return [
        Check(name, str(then), str(found[name]), _verdict(then, found[name]))
        for name, then in recorded.items()
    ]


def _verdict(then: Any, now: Any) -> str:
    if then is None:
        return "unchecked"
    same = math.isclose(then, now, rel_tol=_TOLERANCE) if isinstance(then, float) else then == now
    return "holds" if same else "differs"
