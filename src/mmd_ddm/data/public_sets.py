"""Public data sets by one name: where they lie, and how the field cuts their pictures.

Each name is the training part; with ``-heldout`` behind it, the part that no model is trained on;
with ``:COUNT`` behind that, so many images of it; with ``:PATH``, it lies there.
"""

import re
from dataclasses import dataclass

__all__ = ["DATASETS", "HELDOUT", "PublicSet", "Request", "parse_request"]

HELDOUT = "-heldout"


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        hub_id: on the Hugging Face hub.
        column: that holds the pictures.
        shape: (c, h, w) that a picture has once it is cropped and scaled.
        heldout: the split that no model is trained on.
        crop: left, upper, right, lower, of the original picture; None takes the largest centred
            rectangle of the shape's aspect ratio.
    """

    hub_id: str
    column: str
    shape: tuple[int, int, int]
    heldout: str = "test"
    crop: tuple[int, int, int, int] | None = None


DATASETS = {
    "cifar10": PublicSet("uoft-cs/cifar10", "img", (3, 32, 32)),
    # Rows 57 to 185, columns 25 to 153 of the aligned pictures: the crop of the DDIM code.
    "celeba": PublicSet("flwrlabs/celeba", "image", (3, 64, 64), crop=(25, 57, 153, 185)),
    "imagenet64": PublicSet(
        "benjamin-paine/imagenet-1k-64x64", "image", (3, 64, 64), heldout="validation"
    ),
    "lsun_church": PublicSet("tglcourse/lsun_church_train", "image", (3, 256, 256)),
    "fashion_mnist": PublicSet("zalando-datasets/fashion_mnist", "image", (1, 28, 28)),
}


@dataclass(frozen=True)
class Request:
    """What a person asks for by such a name.

    Attributes:
        name: of `DATASETS`.
        known: the set of that name.
        heldout: the part that no model is trained on, instead of the training part.
        count: of images; 0 is all.
        place: of a local copy; empty looks for one.
    """

    name: str
    known: PublicSet
    heldout: bool
    count: int
    place: str


def parse_request(source: str) -> Request | None:
    """What is asked for; None if it is no such name."""
    parts = re.fullmatch(rf"(\w+)({HELDOUT})?(?::([1-9]\d*)|:(.+))?", source)
    if parts is None or parts[1] not in DATASETS:
        return None
    known = DATASETS[parts[1]]
    return Request(parts[1], known, bool(parts[2]), int(parts[3] or 0), parts[4] or "")
