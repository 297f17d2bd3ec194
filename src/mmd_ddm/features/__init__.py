"""Feature spaces phi, by name: what finetuning optimises and what evaluation judges in.

To add one: write a file with a `FeatureExtractor`, and name it in `FEATURES`.
"""

from collections.abc import Callable
from pathlib import Path

from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.denoiser import DenoiserFeatures
from mmd_ddm.features.efficientnet import EfficientNetLite0
from mmd_ddm.features.multilevel import BUNDLED_ENCODER, MultiLevel, load_encoder, random_encoder
from mmd_ddm.features.pixels import Pixels

__all__ = ["FEATURES", "FeatureExtractor", "MultiLevel", "make_features"]

FEATURES: dict[str, Callable[[int], FeatureExtractor]] = {
    "encoder": lambda channels: load_encoder(BUNDLED_ENCODER),
    "efficientnet-lite0": lambda channels: EfficientNetLite0(),
    "random": random_encoder,
    "pixels": Pixels,
}


def make_features(name: str, channels: int) -> FeatureExtractor:
    """The frozen extractor of that name.

    Args:
        name: a key of `FEATURES`, ``encoder:PATH`` for trained weights of one's own, or
            ``denoiser:MODEL`` for the contracting half of a diffusion model.
        channels: of the images it will see.

    Raises:
        ValueError: an unknown name, or weights that cannot be read.
    """
    if name.startswith("encoder:"):
        phi: FeatureExtractor = load_encoder(Path(name.removeprefix("encoder:")))
    elif name.startswith("denoiser:"):
        phi = DenoiserFeatures(name.removeprefix("denoiser:"))
    elif name in FEATURES:
        phi = FEATURES[name](channels)
    else:
        choices = ", ".join([*FEATURES, "encoder:PATH", "denoiser:MODEL"])
        raise ValueError(f"unknown feature space {name!r}; choose one of {choices}")
    phi.freeze()
    return phi
