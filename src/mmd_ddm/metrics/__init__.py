"""Distances between two sets of feature vectors, in the space those vectors come from."""

from mmd_ddm.metrics.frechet import Moments, frechet_distance
from mmd_ddm.metrics.kid import kid, kid_sums

__all__ = ["Moments", "frechet_distance", "kid", "kid_sums"]
