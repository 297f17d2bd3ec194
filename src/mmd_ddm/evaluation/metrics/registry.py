"""Every metric by name, on one set of features against one of real images, computed once each.

FD in ``inception`` is FID, in ``inception-spatial`` sFID, in ``clip`` FID_CLIP, in ``dinov2``
FD-DINOv2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, Int64
from torch import Tensor

from mmd_ddm.evaluation.metrics.by_class import linear_classifier
from mmd_ddm.evaluation.metrics.cmmd import cmmd
from mmd_ddm.evaluation.metrics.frechet import Moments, frechet_distance
from mmd_ddm.evaluation.metrics.inception_score import inception_score
from mmd_ddm.evaluation.metrics.kid import kid_projections, kid_sums
from mmd_ddm.evaluation.metrics.manifold import density_coverage, precision_recall
from mmd_ddm.evaluation.metrics.sliced import sliced_wasserstein
from mmd_ddm.features.base import FeatureExtractor

__all__ = ["METRICS", "Metric", "Real", "choose_metrics", "register_metric"]

Scores = dict[str, float]


@dataclass(frozen=True)
class Real:
    """The real side of every comparison, and what metrics keep of it.

    Attributes:
        features: [m, d].
        phi: the extractor they come from.
        labels: [m], their classes, if they are known.
    """

    features: Float[Tensor, "m d"]
    phi: FeatureExtractor
    labels: Int64[Tensor, " m"] | None = None

    @cached_property
    def kid_sums(self) -> Tensor:
        """What KID needs of it."""
        return kid_sums(self.features)

    @cached_property
    def classifier(self) -> Callable[[Tensor], Tensor]:
        """What accuracy needs of it.

        Raises:
            ValueError: images of no known class.
        """
        if self.labels is None:
            raise ValueError("a classifier is fitted to real images whose classes are known")
        return linear_classifier(self.features, self.labels.to(self.features.device))

    @cached_property
    def moments(self) -> Moments:
        """What FD needs of it."""
        return Moments.of(self.features)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        score: of generated features against the real ones, as named numbers.
        least: vectors that a set must have.
        about: what is computed, for protocols.
        applies: whether a space has it.
        needs: such a space, in words.
        ours: of code that is not, nobody knows when it changes: its scores are not remembered.
    """

    score: Callable[[Tensor, Real], Scores]
    least: int
    about: str
    applies: Callable[[FeatureExtractor], bool] = lambda phi: True
    needs: str = "any space"
    ours: bool = True


def _kid(x: Tensor, real: Real) -> Scores:
    found = kid_projections(x, real.features, y_sums=real.kid_sums)
    return {"kid": found.value, "kid_se": found.se}


def _fd(x: Tensor, real: Real) -> Scores:
    return {"fd": frechet_distance(Moments.of(x), real.moments)}


def _swd(x: Tensor, real: Real) -> Scores:
    return dict(zip(("swd", "swd_se"), sliced_wasserstein(x, real.features), strict=True))


def _precision_recall(x: Tensor, real: Real) -> Scores:
    return dict(zip(("precision", "recall"), precision_recall(x, real.features), strict=True))


def _density_coverage(x: Tensor, real: Real) -> Scores:
    return dict(zip(("density", "coverage"), density_coverage(x, real.features), strict=True))


def _is(x: Tensor, real: Real) -> Scores:
    return dict(zip(("is", "is_sd"), inception_score(x, real.phi.logits), strict=True))


METRICS = {
    "kid": Metric(
        _kid, 2, "unbiased MMD^2, (x.y/d + 1)^3, whole sets, first-order standard error"
    ),
    "fd": Metric(_fd, 2, "Frechet distance, float64, not corrected for the number of samples"),
    "swd": Metric(
        _swd, 2, "sliced W_1, 512 directions, float64, not corrected for the number of samples"
    ),
    "precision-recall": Metric(_precision_recall, 4, "k = 3, torch-fidelity's"),
    "density-coverage": Metric(_density_coverage, 6, "k = 5"),
    "is": Metric(
        _is,
        10,
        "10 parts in torch-fidelity's order, logits without bias; is_sd is over the parts",
        lambda phi: hasattr(phi, "class_weights"),
        "a space with classes, as inception or efficientnet-lite0",
    ),
    "cmmd": Metric(
        lambda x, real: {"cmmd": cmmd(x, real.features)},
        1,
        "1000 x biased MMD^2 of normalised vectors, Gaussian kernel, sigma = 10",
        lambda phi: phi.name == "clip",
        "a clip space",
    ),
}


def register_metric(name: str, fn: Callable[[Tensor, Tensor], float]) -> None:
    """Add a metric of one's own, which every evaluation then computes by that name.

    Args:
        name: not that of another one.
        fn: of generated features [n, d] and real ones [m, d]; lower is better.

    Raises:
        ValueError: a name that is taken.
    """
    if name in METRICS:
        raise ValueError(f"there is a metric {name!r} already; choose another name")
    about = " ".join((fn.__doc__ or "registered by the caller").split())
    METRICS[name] = Metric(
        lambda x, real: {name: float(fn(x, real.features))}, 2, about, ours=False
    )


def choose_metrics(
    asked: Sequence[str], phis: Sequence[FeatureExtractor], images: int
) -> list[tuple[str, ...]]:
    """The metrics to compute in each space.

    Args:
        asked: names of `METRICS`; none takes all that the images are enough for.
        phis: the spaces.
        images: the smallest number in any set that is compared.

    Raises:
        ValueError: an unknown name, one that no space has, or too few images for it.
    """
    for name in asked:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; choose of {', '.join(METRICS)}")
        if images < METRICS[name].least:
            raise ValueError(
                f"{name} needs at least {METRICS[name].least} images in each of the compared "
                f"sets, also in half of the real ones; got {images}"
            )
        if not any(METRICS[name].applies(phi) for phi in phis):
            raise ValueError(f"{name} needs {METRICS[name].needs}: add it with --features")
    names = asked or [name for name, metric in METRICS.items() if images >= metric.least]
    return [tuple(name for name in names if METRICS[name].applies(phi)) for phi in phis]
