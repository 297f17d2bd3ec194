"""Whether two feature spaces read one network: then neither can judge what the other optimised.

Layers, a copy in half precision and other names make another space of a network, but no other
network. A network without weights is known by its hash alone.
"""

from mmd_ddm.features.base import FeatureExtractor

__all__ = ["shared_network"]


def shared_network(one: FeatureExtractor, other: FeatureExtractor) -> str:
    """Why two spaces are readings of one network, for a sentence; empty if they are not."""
    if one.sha256 == other.sha256:
        return "they are one space, with equal weights"
    if one.family and one.family == other.family:
        return f"both read {one.family}"
    if one.weight_digests & other.weight_digests:
        return "they have weights in common"
    return ""
