"""Estimates of KID with a value and an error, which tests can compare as they like."""

import torch

from mmd_ddm.maths.projections import Projections


def estimate(value, se=0.1, of="noise"):
    """Of two vectors: estimates of the same noise differ by their values without any error."""
    return Projections({of: torch.tensor([value - se / 2, value + se / 2], dtype=torch.float64)})
