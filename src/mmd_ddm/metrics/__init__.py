"""Metrics between two sets of feature vectors, in the space those vectors come from."""

from mmd_ddm.metrics.battery import METRICS, Real, choose_metrics
from mmd_ddm.metrics.cmmd import cmmd
from mmd_ddm.metrics.frechet import Moments, frechet_distance
from mmd_ddm.metrics.inception_score import inception_score
from mmd_ddm.metrics.kid import kid, kid_sums
from mmd_ddm.metrics.manifold import density_coverage, precision_recall

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
    "kid_sums",
    "precision_recall",
]
