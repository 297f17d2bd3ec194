"""What is matched: a feature space, and the data's features in it (phi, y and k of Eq. 7)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmd_ddm.config import ObjectiveConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.maths.joint_mmd import LabelKernel, TextKernel, joint_constant
from mmd_ddm.maths.kernels import Kernel, make_kernel
from mmd_ddm.maths.mmd import landmark_weights, within
from mmd_ddm.maths.random import generator
from mmd_ddm.runs.progress import Progress

__all__ = ["Objective", "build_objectives"]

_REFERENCES = ("bank", "minibatch")
_BLOCK = 4096  # features read at once
_LEAST_DEVIATION = 0.01  # of the mean one: dimensions in which the data hardly vary stay small


@dataclass(frozen=True)
class Objective:
    """One feature space to match, and the data's features in it.

    Attributes:
        phi: the extractor.
        bank: [m, d], features of the reference set, standardised if the space is.
        kernel: of the MMD.
        constant: the data's own term of the MMD (c in Eq. 7).
        weight: of this space in the loss.
        mean: [d], subtracted from every vector.
        std: [d], by which every vector is divided then.
        bank_weights: [m], of the bank in the cross term; None is 1/m each.
        labels: [m], the conditions of the bank by their numbers: classes, or captions; None where
            they are not matched.
        label_kernel: of the conditions; None where they are not matched.
    """

    phi: FeatureExtractor
    bank: Float[Tensor, "m d"]
    kernel: Kernel
    constant: float
    weight: float
    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]
    bank_weights: Float[Tensor, " m"] | None = None
    labels: Int64[Tensor, " m"] | None = None
    label_kernel: LabelKernel | None = None

    @classmethod
    def over(
        cls,
        phi: FeatureExtractor,
        features: Float[Tensor, "m d"],
        kernel: Kernel,
        weight: float = 1.0,
        *,
        standardise: bool = True,
        landmarks: int = 0,
        device: torch.device | str | None = None,
        labels: Int64[Tensor, " m"] | None = None,
        mix: float = 0.0,
        vectors: Float[Tensor, "c e"] | None = None,
    ) -> "Objective":
        """An objective over these features of the data.

        Args:
            phi: the extractor.
            features: [m, d], of the reference set.
            kernel: of the MMD.
            weight: of this space in the loss.
            standardise: by the mean and deviation of the data, so that no dimension drowns the
                others, and no space another one; False takes the features as they are.
            landmarks: so many of the features, weighted, stand for all of them (Nystroem); the
                others are read once, block by block, and not held. 0 holds all.
            device: of the bank; None is that of the features.
            labels: [m], the conditions of the reference set by number, to match them as well.
            mix: of `LabelKernel`.
            vectors: text embeddings of the conditions, which are captions; None of classes.

        Raises:
            ValueError: a class of one image, or landmarks, which have no classes.
        """
        mean, std = torch.zeros_like(features[0]), torch.ones_like(features[0])
        if standardise:
            mean, std = features.mean(0), features.std(0)
            std = std.clamp_min(float(_LEAST_DEVIATION * std.mean()))
        device = device or features.device
        mean, std = mean.to(device), std.to(device)

        def held(rows: Tensor) -> Tensor:
            rows = rows.to(device)
            return (rows - mean) / std if standardise else rows

        if labels is not None:
            if landmarks:
                raise ValueError(
                    "objective.landmarks have no classes: set it to 0, or condition.match = ignore"
                )
            bank, labels = held(features), labels.to(device)
            k_c = LabelKernel.of(labels, mix)
            if vectors is not None:
                k_c = TextKernel.over(labels, mix, vectors.to(device))
            c = joint_constant(bank, labels, kernel, k_c)
            return cls(phi, bank, kernel, c, weight, mean, std, None, labels, k_c)
        if not 0 < landmarks < len(features):
            bank = held(features)
            return cls(phi, bank, kernel, float(within(bank, kernel)), weight, mean, std)
        draw = generator(0, 0, 0, "landmarks")
        bank = held(features[torch.randperm(len(features), generator=draw)[:landmarks]])
        w = landmark_weights(bank, map(held, features.split(_BLOCK)), kernel)
        constant = float(w @ kernel(bank, bank) @ w)
        return cls(phi, bank, kernel, constant, weight, mean, std, w)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the kernel sees of these images."""
        vectors: Tensor = self.phi(images)
        return (vectors - self.mean) / self.std


def build_objectives(
    config: ObjectiveConfig,
    phis: Mapping[str, FeatureExtractor],
    reference: ImageSet,
    device: torch.device,
    progress: Progress,
    labels: Int64[Tensor, " m"] | None = None,
    mix: float = 0.0,
    vectors: Float[Tensor, "c e"] | None = None,
) -> list[Objective]:
    """An objective for each of these spaces, in their order.

    Args:
        config: weights, kernel and what becomes of the features.
        phis: the spaces by name, on ``device``.
        reference: the images to match.
        device: of the banks.
        progress: told what is done.
        labels: of ``reference``, to match them as well; with ``mix`` and ``vectors`` as
            `Objective.over` takes them.
        mix: of the per-class term.
        vectors: of captions.

    Raises:
        ValueError: as many weights as there are no spaces, an unknown kernel or reference, or
            classes that cannot be matched.
    """
    weights = config.weights or (1.0,) * len(phis)
    if len(weights) != len(phis):
        raise ValueError(
            f"objective.weights has {len(weights)} entries, objective.features {len(phis)}"
        )
    if config.reference not in _REFERENCES:
        raise ValueError(
            f"unknown reference {config.reference!r}; choose one of {', '.join(_REFERENCES)}"
        )
    kernel = make_kernel(config.kernel)
    objectives = []
    with progress.bar("features to match", len(phis) * len(reference)) as bar:
        for done, (phi, weight) in enumerate(zip(phis.values(), weights, strict=True), 1):
            features = cached_features(
                reference, phi, device=device, on_batch=lambda k: bar(advance=k)
            )
            objective = Objective.over(
                phi, features, kernel, weight,
                standardise=config.standardise, landmarks=config.landmarks, device=device,
                labels=labels, mix=mix, vectors=vectors,
            )  # fmt: skip
            objectives.append(objective)
            bar(done=done * len(reference))
    return objectives
