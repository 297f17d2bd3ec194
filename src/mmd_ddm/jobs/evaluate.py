"""A model measured against real images: what ``mmd-ddm evaluate`` runs.

The generated images are compared with the whole of the real ones. The floor is taken between two
random halves of the same real images, so that no second set is needed. Drawn images, features and
scores are remembered by what they were computed from, so that the same command, or one with a
metric or a space more, computes only what is new.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig, from_mapping
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.draw import draw
from mmd_ddm.evaluation.judge import Space, result_row
from mmd_ddm.evaluation.metrics import METRICS, choose_metrics
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.registry import FeatureExtractor, make_features
from mmd_ddm.jobs.build import Model, build_sampler
from mmd_ddm.jobs.judging import protocol
from mmd_ddm.maths.random import generator
from mmd_ddm.runs.fingerprint import code_sha256, key_of, weights_sha256
from mmd_ddm.runs.folder import read_json
from mmd_ddm.runs.progress import Progress
from mmd_ddm.runs.store import remembered, remembered_arrays
from mmd_ddm.samplers.base import Sampler

__all__ = ["DEFAULT_SPACES", "measure", "read_roles"]

DEFAULT_SPACES = ("efficientnet-lite0", "encoder", "random", "pixels")


def read_roles(run: Path) -> dict[str, str]:
    """What each feature space was to the finetuning in this folder; empty if there was none.

    Args:
        run: a run folder, or the model/ in it.

    Raises:
        ValueError: a record that cannot be read.
    """
    record = (run.parent if run.name == "model" else run) / "run.json"
    about = read_json(record) if record.is_file() else {}
    if about.get("verb") != "finetune":
        return {}
    config = from_mapping(FinetuneConfig, about.get("settings", {}))
    roles = dict.fromkeys(config.objective.features, "optimised")
    roles[config.select.features] = "selection"
    return roles | dict.fromkeys(config.judges, "held-out")


def measure(
    model: Model,
    chains: Sequence[ChainConfig],
    images: ImageSet,
    roles: dict[str, str],
    metrics: Sequence[str],
    progress: Progress,
    *,
    n: int,
    seed: int,
) -> dict[str, Any]:
    """The content of ``results.json``: a row a chain, every space with its role and floor.

    Args:
        model: on its device.
        chains: with their times filled in.
        images: the real ones.
        roles: of every space to measure in, by its name.
        metrics: names of `METRICS`; none takes all that the images are enough for.
        progress: told what is done.
        n: images to draw.
        seed: of the first.

    Raises:
        ValueError: an unknown space or metric, or too few images.
    """
    if n < 2 or len(images) < 4:
        raise ValueError(
            f"at least 2 drawn and 4 real images are needed; got -n {n} and {len(images)} in "
            f"{images.source}"
        )
    half = len(images) // 2
    device = model.denoiser.device
    phis = [make_features(name, model.denoiser.shape[0]).to(device) for name in roles]
    chosen = choose_metrics(metrics, phis, min(n, half))
    judged = [
        _Judged(name, role, phi, images, names, seed, device)
        for (name, role), phi, names in zip(roles.items(), phis, chosen, strict=True)
    ]
    about = {}
    with progress.bar("features of the data", len(judged)) as bar:
        for space in judged:
            about[space.name] = space.describe()
            bar(advance=1, note=space.name)
    rows = []
    for chain in chains:
        sampler = build_sampler(chain, model.denoiser)
        drawn, speed = _drawn(model, chain, sampler, n, seed, progress)
        scores = {}
        with progress.bar("judging", len(judged)) as bar:
            for space in judged:
                scores[space.name] = space.scores(drawn)
                bar(advance=1, note=space.name)
        name = "base" if model.chain is None else "finetuned"
        rows.append(result_row(name, model.name, chain, sampler, speed, scores))
    used = [name for name in METRICS if any(name in names for names in chosen)]
    return {
        "protocol": {
            **protocol(images, n, seed, used),
            "floor": f"two random halves of the real images, {half} and {len(images) - half}",
        },
        "spaces": about,
        "rows": rows,
    }


@dataclass(frozen=True)
class _Judged:
    """A space to measure in; features are asked for only where a score is not remembered."""

    name: str
    role: str
    phi: FeatureExtractor
    images: ImageSet
    metrics: tuple[str, ...]
    seed: int
    device: torch.device

    def describe(self) -> dict[str, Any]:
        """For ``results.json``, with the floor between two random halves of the real images."""
        order = torch.randperm(len(self.images), generator=generator(self.seed, 0, 0, "floor"))
        half = len(order) // 2

        def floor(metric: str) -> dict[str, float]:
            real = self._space.real
            space = Space(self.name, self.role, self.phi, real[order[:half]], real[order[half:]])
            return space.score(metric, space.other_real)

        return {
            "role": self.role,
            "dim": self.phi.dim or self._space.real.shape[1],
            "sha256": self.phi.sha256,
            "floor": self._remembered(floor, "floor", self.seed),
        }

    def scores(self, drawn: ImageSet) -> dict[str, float]:
        """Every metric between the drawn images and the real ones."""

        def of(metric: str) -> dict[str, float]:
            features = cached_features(drawn, self.phi, device=self.device)
            return self._space.score(metric, features)

        return self._remembered(of, "drawn", drawn.sha256)

    @cached_property
    def _space(self) -> Space:
        real = cached_features(self.images, self.phi, device=self.device).to(self.device)
        return Space(self.name, self.role, self.phi, real, real)

    def _remembered(
        self, compute: Callable[[str], dict[str, float]], *about: Any
    ) -> dict[str, float]:
        inputs = (code_sha256(), self.phi.sha256, self.images.sha256, self.device.type, *about)
        found: dict[str, float] = {}
        for metric in self.metrics:
            found |= remembered("scores", key_of(metric, *inputs), partial(compute, metric))
        return found


def _drawn(
    model: Model, chain: ChainConfig, sampler: Sampler, n: int, seed: int, progress: Progress
) -> tuple[ImageSet, float]:
    """The images of these seeds, and how many a second were drawn, now or when they were.

    The sampler then knows its network calls, whichever it was.
    """
    denoiser = model.denoiser
    network: Any = denoiser.network
    key = key_of(
        code_sha256(),
        weights_sha256(network),
        {k: str(v) for k, v in network.config.items() if not k.startswith("_")},
        {k: str(v) for k, v in model.scheduler_config.items()},
        denoiser.gamma.values if chain.sampler.startswith("analytic") else (),
        [denoiser.device.type, str(denoiser.autocast), asdict(chain), n, seed],
    )

    def compute() -> dict[str, np.ndarray]:
        with progress.bar(f"{len(sampler.times)} steps", n) as bar:
            pixels, speed = draw(sampler, n, seed=seed, on_batch=lambda k: bar(advance=k))
        calls = np.array(sampler.nfe)
        return {"pixels": pixels.numpy(), "images_per_second": np.array(speed), "nfe": calls}

    kept = remembered_arrays("samples", key, compute)
    sampler.nfe = int(kept["nfe"])
    drawn = ImageSet(torch.from_numpy(kept["pixels"]), f"the images of {model.name}")
    return drawn, float(kept["images_per_second"])
