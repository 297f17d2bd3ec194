"""Metrics between two sets of feature vectors, in the space those vectors come from."""

from mmd_ddm.evaluation.metrics.cmmd import cmmd
from mmd_ddm.evaluation.metrics.frechet import Moments, frechet_distance
from mmd_ddm.evaluation.metrics.inception_score import inception_score
from mmd_ddm.evaluation.metrics.kid import kid, kid_projections, kid_sums
from mmd_ddm.evaluation.metrics.manifold import density_coverage, precision_recall
from mmd_ddm.evaluation.metrics.registry import METRICS, Real, choose_metrics
from mmd_ddm.evaluation.metrics.sliced import sliced_wasserstein

__all__ = [
    "METRICS",
    "Moments",
    "Real",
    "choose_metrics",
    "cmmd",
    "density_coverage",
    "frechet_distance",
    "inception_score",
    "kid",
    "kid_projections",
    "kid_sums",
    "precision_recall",
    "sliced_wasserstein",
]
