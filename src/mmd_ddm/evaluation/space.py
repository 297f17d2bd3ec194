"""A feature space with the real images that drawn ones are compared with there.

Beside every score stands the *floor*: the same score between two sets of real images, which no
model can honestly beat. Scores are remembered by what they were computed from, and features are
asked for only where a score is not: the same images are compared twice for nothing. Of KID the
projections are remembered, so that the differences of two rows can be paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics.by_class import (
    class_kid,
    class_scores,
    comparable,
    linear_classifier,
)
from mmd_ddm.evaluation.metrics.kid import kid_projections
from mmd_ddm.evaluation.metrics.registry import METRICS, Real
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import generator
from mmd_ddm.runs.fingerprint import code_sha256, key_of
from mmd_ddm.runs.progress import Progress
from mmd_ddm.runs.store import remembered, remembered_arrays

__all__ = ["Space", "describe", "metric_device"]

Scores = dict[str, float]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Space:
    """A space to judge in.

    Attributes:
        name: of the space.
        role: optimised, selection or held-out.
        phi: the extractor, on ``device``.
        real: the images to compare with.
        other: other real images, for the floor; None takes it between two random halves of
            ``real``.
        metrics: names of `METRICS`.
        device: where features and metrics are computed.
    """

    name: str
    role: str
    phi: FeatureExtractor
    real: ImageSet
    other: ImageSet | None = None
    metrics: tuple[str, ...] = ("fd", "kid")
    device: torch.device = _CPU

    def scores(self, images: ImageSet) -> Scores:
        """Every metric between these images and the real ones.

        Raises:
            ValueError: a space that gives them vectors of another dimension.
        """
        others = [name for name in self.metrics if name != "kid"]
        found = self._remembered(partial(self._score, images), images.sha256, others)
        if "kid" in self.metrics:
            kid = self.kid(images)
            found |= {"kid": kid.value, "kid_se": kid.se}
        if self.sees_classes_of(images):
            found |= _numbers(self.by_class(images))
        return found

    def kid(self, images: ImageSet, name: str = "generated") -> Projections:
        """KID of these images, as what each of them and each real one adds to it.

        Args:
            images: to compare with the real ones.
            name: of their noise: estimates of one noise pair.

        Raises:
            ValueError: a space that gives them vectors of another dimension.
        """

        def compute() -> dict[str, np.ndarray]:
            found = kid_projections(*self._compared(images), y_sums=self._real.kid_sums)
            return {part: values.cpu().numpy() for part, values in found.parts.items()}

        kept = remembered_arrays("projections", key_of(*self._about, images.sha256), compute)
        parts = {part: torch.from_numpy(values) for part, values in kept.items()}
        return Projections({name: parts["generated"], "real": parts["real"]})

    def sees_classes_of(self, images: ImageSet) -> bool:
        """Whether these and the real images can be compared by classes, and KID is asked for."""
        pairs = [(one, self.real) for one in (images, self.other) if one is not None]
        return "kid" in self.metrics and all(_comparable(one, real) for one, real in pairs)

    def class_kid(self, images: ImageSet, name: str = "generated") -> Projections:
        """Class KID, as `kid` gives KID.

        Raises:
            ValueError: no class has two images in both sets.
        """

        def compute() -> dict[str, np.ndarray]:
            found, _ = class_kid(*self._with_classes(images))
            return {part: values.cpu().numpy() for part, values in found.parts.items()}

        key = key_of("classes", *self._about, images.sha256, *_labels(images, self.real))
        kept = remembered_arrays("projections", key, compute)
        parts = {part: torch.from_numpy(values) for part, values in kept.items()}
        return Projections({name: parts["generated"], "real": parts["real"]})

    def accuracy(self, images: ImageSet, name: str = "generated") -> Projections:
        """The accuracy among these images, as `kid` gives KID; the classifier is as it is."""

        def compute() -> dict[str, np.ndarray]:
            x, of_x, *_ = self._with_classes(images)
            right = (self._real.classifier(x) == of_x).double()
            # Half as far apart: the variance of a mean is Var / n, not 4 Var / n.
            return {"generated": ((right + right.mean()) / 2).cpu().numpy()}

        key = key_of("accuracy", *self._about, images.sha256, *_labels(images, self.real))
        kept = remembered_arrays("projections", key, compute)
        return Projections({name: torch.from_numpy(kept["generated"])})

    def by_class(self, images: ImageSet) -> dict[str, Any]:
        """The `class_scores` of these images.

        Raises:
            ValueError: no class has two images in both sets.
        """

        def compute() -> dict[str, Any]:
            return class_scores(*self._with_classes(images), self._real.classifier)

        key = key_of("by class", *self._about, images.sha256, *_labels(images, self.real))
        return remembered("scores", key, compute)

    def floor(self) -> Scores:
        """Every metric between two sets of real images."""
        if self.other is not None:
            return self.scores(self.other)
        order = torch.randperm(len(self.real), generator=generator(0, 0, 0, "floor"))
        half = len(order) // 2

        def between_halves(metric: Callable[[Tensor, Real], Scores]) -> Scores:
            features = self._real.features
            return metric(features[order[half:]], Real(features[order[:half]], self.phi))

        found = self._remembered(between_halves, "halves", self.metrics)
        if "kid" not in self.metrics or not _comparable(
            self.real.take(order[half:]), self.real.take(order[:half])
        ):
            return found

        def between_classes() -> dict[str, Any]:
            features, labels, *_ = self._with_classes(self.real)
            y, of_y = features[order[:half]], labels[order[:half]]
            x, of_x = features[order[half:]], labels[order[half:]]
            return class_scores(x, of_x, y, of_y, linear_classifier(y, of_y))

        key = key_of("by class", *self._about, "halves", *_labels(self.real))
        return found | _numbers(remembered("scores", key, between_classes))

    def describe(self) -> dict[str, Any]:
        """For ``results.json``: the role, the weights, the floor."""
        return {
            "role": self.role,
            "dim": self.phi.dim or self._real.features.shape[1],
            "sha256": self.phi.sha256,
            "floor": self.floor(),
        }

    def _score(self, images: ImageSet, metric: Callable[[Tensor, Real], Scores]) -> Scores:
        features, _ = self._compared(images)
        return metric(features, self._real)

    def _compared(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Their features, and those of the real ones."""
        features, real = self._features(images), self._real
        if features.shape[1] != real.features.shape[1]:
            raise ValueError(
                f"features of {self.name} have dimension {features.shape[1]}, those of the real "
                f"images {real.features.shape[1]}"
            )
        return features, real.features

    def _with_classes(self, images: ImageSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features and classes of both, on the device of metrics."""
        x, y = self._compared(images)
        of_x, of_y = (torch.tensor(labels).to(x.device) for labels in _labels(images, self.real))
        return x, of_x, y, of_y

    @property
    def _about(self) -> list[str]:
        """All that decides a comparison, but for the images that are compared."""
        return [code_sha256(), self.phi.sha256, self.real.sha256, self.device.type]

    @cached_property
    def _real(self) -> Real:
        return Real(self._features(self.real), self.phi, self.real.labels)

    def _features(self, images: ImageSet) -> Tensor:
        features = cached_features(images, self.phi, device=self.device)
        return features.to(metric_device(self.device))

    def _remembered(
        self,
        compute: Callable[[Callable[[Tensor, Real], Scores]], Scores],
        of: str,
        names: Sequence[str],
    ) -> Scores:
        """The numbers of these metrics, each remembered on its own."""
        found: Scores = {}
        for name in names:
            metric = METRICS[name]
            score = partial(compute, metric.score)
            if metric.ours:
                found |= remembered("scores", key_of(name, *self._about, of), score)
            else:
                found |= score()
        return found


def _comparable(images: ImageSet, real: ImageSet) -> bool:
    if images.labels is None or real.labels is None:
        return False
    return bool(comparable(images.labels, real.labels))


def _numbers(by_class: dict[str, Any]) -> Scores:
    """Without those of every class."""
    return {key: value for key, value in by_class.items() if key != "each"}


def _labels(*sets: ImageSet) -> list[list[int]]:
    return [[] if images.labels is None else images.labels.tolist() for images in sets]


def metric_device(device: torch.device) -> torch.device:
    """Where metrics of features are computed: others than CUDA have no fast float64."""
    return device if device.type == "cuda" else _CPU


def describe(spaces: list[Space], progress: Progress) -> dict[str, Any]:
    """What ``results.json`` says of each space, by its name."""
    about = {}
    with progress.bar("features of the data", len(spaces)) as bar:
        for space in spaces:
            about[space.name] = space.describe()
            bar(advance=1, note=space.name)
    return about
