"""Public data sets by one name: where they lie, and how the field cuts their pictures.

Each name is the training part; with ``-heldout`` behind it, the part that no model is trained on.
"""

from dataclasses import dataclass

__all__ = ["DATASETS", "HELDOUT", "PublicSet"]

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
