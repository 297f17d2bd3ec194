r"""Whether images are of the classes that they were drawn under, in any feature space.

*Class KID* is the mean over classes of the unbiased KID between the generated and the real images
of a class: it is not below the KID of all images together, and sees what cancels over classes.

*Accuracy* is the share of images in whose features a classifier finds the class they were drawn
under. It is linear discriminant analysis of the real images: with mu_c and p_c the mean and the
share of class c in the features standardised, and S their covariance within classes,

    argmax_c  z^T (S + 0.1 I)^-1 mu_c - mu_c^T (S + 0.1 I)^-1 mu_c / 2 + log p_c

It is worth what it finds on real images that it was not fitted to, which stands beside it: above
that, images are prototypes of their class rather than members of it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmd_ddm.evaluation.metrics.kid import kid_projections
from mmd_ddm.maths.projections import Projections

__all__ = ["ABOUT", "accuracies", "class_kid", "class_scores", "comparable", "linear_classifier"]

ABOUT = {
    "class_kid": "mean over classes of the KID within a class",
    "accuracy": "of linear discriminant analysis fitted to the real images' features",
}
_RIDGE = 0.1


def comparable(of_x: Int64[Tensor, " n"], of_y: Int64[Tensor, " m"]) -> list[int]:
    """The classes of which both sets have two images or more."""
    known = int(of_y.max()) + 1
    counts = [torch.bincount(labels, minlength=known)[:known] for labels in (of_x, of_y)]
    classes: list[int] = (torch.minimum(*counts) >= 2).nonzero()[:, 0].tolist()
    return classes


def class_kid(
    x: Float[Tensor, "n d"],
    of_x: Int64[Tensor, " n"],
    y: Float[Tensor, "m d"],
    of_y: Int64[Tensor, " m"],
) -> tuple[Projections, dict[int, Projections]]:
    """Class KID, and the KID of every class, as what each vector adds to it.

    Args:
        x: generated features.
        of_x: their classes.
        y: real features.
        of_y: their classes; those of which either set has fewer than two vectors do not count.

    Raises:
        ValueError: no class has two vectors in both sets.
    """
    classes = comparable(of_x, of_y)
    if not classes:
        raise ValueError("no class has two images in both sets: draw more")
    found = {c: kid_projections(x[of_x == c], y[of_y == c]) for c in classes}
    parts = {}
    for name, labels in (("generated", of_x), ("real", of_y)):
        mean = sum(float(one.parts[name].mean()) for one in found.values()) / len(classes)
        parts[name] = torch.full((len(labels),), mean, dtype=torch.float64, device=x.device)
        for c, one in found.items():
            own = one.parts[name]
            weight = len(labels) / (len(classes) * len(own))
            # How far classes differ from each other is no error of their mean.
            parts[name][labels == c] += (own - own.mean()) * weight
    return Projections(parts), found


def class_scores(
    x: Float[Tensor, "n d"],
    of_x: Int64[Tensor, " n"],
    y: Float[Tensor, "m d"],
    of_y: Int64[Tensor, " m"],
    classifier: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Class KID and accuracy with their errors, and ``each``, the numbers of every class.

    Args:
        x: generated features.
        of_x: their classes.
        y: real features.
        of_y: their classes.
        classifier: of features.

    Raises:
        ValueError: whatever `class_kid` refuses.
    """
    kid, kids = class_kid(x, of_x, y, of_y)
    told = accuracies(classifier(x), of_x, kids)
    return {"class_kid": kid.value, "class_kid_se": kid.se, **told}


def linear_classifier(
    y: Float[Tensor, "m d"], of_y: Int64[Tensor, " m"]
) -> Callable[[Float[Tensor, "n d"]], Int64[Tensor, " n"]]:
    """A classifier of features, fitted to these in float64.

    Args:
        y: features.
        of_y: their classes.
    """
    mean, std = y.double().mean(0), y.double().std(0).clamp_min(1e-6)

    def standard(rows: Tensor) -> Tensor:
        return (rows.double() - mean) / std

    z, of_class = standard(y), torch.nn.functional.one_hot(of_y).double()
    counts = of_class.sum(0)
    means = (of_class.T @ z) / counts.clamp_min(1)[:, None]
    within = z - means[of_y]
    covariance = within.T @ within / len(z)
    covariance.diagonal().add_(_RIDGE)
    weights = torch.linalg.solve(covariance, means.T)
    offset = (counts / len(z)).log() - (means.T * weights).sum(0) / 2
    return lambda rows: (standard(rows) @ weights + offset).argmax(1)


def accuracies(
    found: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], kids: dict[int, Projections]
) -> dict[str, Any]:
    """Accuracy with its standard error, and a row of the numbers of every class.

    Args:
        found: the classes that a classifier told.
        labels: those that the images were drawn under.
        kids: of every class that has one.
    """
    right = found == labels
    share = float(right.double().mean())
    each = []
    for c in labels.unique().tolist():
        kid = kids.get(c)
        scores = {} if kid is None else {"kid": kid.value, "kid_se": kid.se}
        own = right[labels == c]
        each.append(
            {"class": c, "images": len(own), "accuracy": float(own.double().mean()), **scores}
        )
    return {
        "accuracy": share,
        "accuracy_se": math.sqrt(share * (1 - share) / len(labels)),
        "each": each,
    }
