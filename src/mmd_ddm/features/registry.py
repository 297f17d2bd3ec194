"""Feature spaces phi, by name: what finetuning optimises and what evaluation judges in.

To add one: write a file with a `FeatureExtractor`, and name it in `FEATURES` or `WITH_ARGUMENT`;
from outside, `register_features` does.
"""

from collections.abc import Callable
from pathlib import Path

from mmd_ddm.features.base import FeatureExtractor, Rounded
from mmd_ddm.features.clip import Clip
from mmd_ddm.features.dinov2 import Dinov2
from mmd_ddm.features.efficientnet import EfficientNetLite0, SpatialEfficientNetLite0
from mmd_ddm.features.frequencies import Frequencies
from mmd_ddm.features.imported import Imported
from mmd_ddm.features.inception import Inception, SpatialInception
from mmd_ddm.features.multilevel import BUNDLED_ENCODER, MultiLevel, load_encoder, random_encoder
from mmd_ddm.features.own_network import DenoiserFeatures, split_times
from mmd_ddm.features.patches import Patches
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.features.timm_network import TimmNetwork

__all__ = [
    "FEATURES",
    "WITH_ARGUMENT",
    "FeatureExtractor",
    "MultiLevel",
    "make_features",
    "make_recorded",
    "register_features",
]

FEATURES: dict[str, Callable[[int], FeatureExtractor]] = {
    "encoder": lambda channels: load_encoder(BUNDLED_ENCODER),
    "efficientnet-lite0": lambda channels: EfficientNetLite0(),
    "efficientnet-lite0-spatial": lambda channels: SpatialEfficientNetLite0(),
    "random": random_encoder,
    "pixels": Pixels,
    "frequencies": lambda channels: Frequencies(),
    "patches": Patches,
    "inception": lambda channels: Inception(),
    "inception-spatial": lambda channels: SpatialInception(),
    "clip": lambda channels: Clip(),
    "dinov2": lambda channels: Dinov2(),
}
WITH_ARGUMENT: dict[str, Callable[[str], FeatureExtractor]] = {
    "encoder:PATH": lambda path: load_encoder(Path(path)),
    "denoiser:MODEL": DenoiserFeatures,
    "inception:PATH": lambda path: Inception(Path(path)),
    "inception-spatial:PATH": lambda path: SpatialInception(Path(path)),
    "clip:MODEL": Clip,
    "dinov2:MODEL": Dinov2,
    "timm:NAME": TimmNetwork,
    "import:MODULE:NAME": Imported,
}
_ROUNDED = "+uint8"


def register_features(name: str, cls: Callable[[int], FeatureExtractor]) -> None:
    """Add a feature space of one's own, which every verb then takes by that name.

    Args:
        name: not that of another one; without a colon.
        cls: made with the number of channels of the images: ``cls(channels)``.

    Raises:
        ValueError: a name that is taken, or that would be read as one with an argument.
    """
    if name in FEATURES or ":" in name or name.endswith(_ROUNDED):
        raise ValueError(f"a feature space cannot be called {name!r}; choose another name")
    FEATURES[name] = cls


def make_features(name: str, channels: int) -> FeatureExtractor:
    """The frozen extractor of that name.

    Args:
        name: a key of `FEATURES`, or one of `WITH_ARGUMENT` with its argument; ``+uint8`` behind
            it clamps and rounds the images first, and lets the gradient through.
        channels: of the images it will see.

    Raises:
        ValueError: an unknown name, or weights that cannot be had or read.
    """
    bare = name.removesuffix(_ROUNDED)
    kind, colon, argument = bare.partition(":")
    makers = {key.partition(":")[0]: make for key, make in WITH_ARGUMENT.items()}
    if bare in FEATURES:
        phi = FEATURES[bare](channels)
    elif colon and argument and kind in makers:
        phi = makers[kind](argument)
    else:
        choices = ", ".join([*FEATURES, *WITH_ARGUMENT])
        raise ValueError(f"unknown feature space {name!r}; choose one of {choices}")
    if bare != name:
        phi = Rounded(phi)
    phi.freeze()
    for key, weights in phi.state_dict().items():
        if weights.is_floating_point() and not bool(weights.isfinite().all()):
            raise ValueError(
                f"{name} has weights that are not numbers, in {key}: take another file of them"
            )
    return phi


def make_recorded(name: str, channels: int, place: Callable[[str], str]) -> FeatureExtractor:
    """`make_features` of a name that stands in a record, which must not choose code to run.

    Args:
        name: as in the record.
        channels: of the images it will see.
        place: where an argument of the name lies, seen from here.

    Raises:
        ValueError: as there, and for ``import:``.
    """
    bare = name.removesuffix(_ROUNDED)
    kind, _, argument = bare.partition(":")
    if kind == "import":
        raise ValueError(
            f"{name} is code, which a record may not call: name it on the command line"
        )
    # The times of a denoiser are no part of where it lies.
    where = split_times(argument)[0] if kind == "denoiser" else argument
    here = f"{kind}:{place(where)}{argument.removeprefix(where)}" if argument else bare
    return make_features(here + name.removeprefix(bare), channels)
