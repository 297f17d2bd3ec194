"""Any network of the timm library: its pooled features before the classifier.

Images are scaled to the size the network was trained at (bicubic, antialiased, centre crop) and
normalised by its own mean and deviation.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor, normalised
from mmd_ddm.features.efficientnet import EfficientNetLite0
from mmd_ddm.features.weights import own_copy
from mmd_ddm.models.find import shorten

__all__ = ["TimmNetwork"]


class TimmNetwork(FeatureExtractor):
    """phi(x) = the pooled features.

    Args:
        choice: ``NAME`` of the library, or ``NAME@PATH`` with weights of one's own. Without a
            path, ``timm/NAME.safetensors`` in ``$MMD_DDM_WEIGHTS``, then the library's cache and
            the hub.

    Raises:
        ValueError: no such network, or weights that cannot be had or read.
    """

    def __init__(self, choice: str) -> None:
        super().__init__()
        import timm

        name, _, given = choice.partition("@")
        self.name = self.family = f"timm:{name}"
        if name.partition(".")[0] == "tf_efficientnet_lite0":
            self.family = EfficientNetLite0.family
        path = Path(given) if given else own_copy(f"timm/{name}.safetensors")
        if path and not path.is_file():
            raise ValueError(f"{self.name}: no weights at {path}")
        try:
            network: Any = timm.create_model(
                name,
                pretrained=True,
                num_classes=0,
                pretrained_cfg_overlay={"file": str(path)} if path else None,
            )
        except Exception as error:  # the library, its hub's client and the transport
            raise ValueError(
                f"cannot load {self.name}: {shorten(error)}; offline, put its weights at "
                f"$MMD_DDM_WEIGHTS/timm/{name}.safetensors, or name them: {self.name}@PATH"
            ) from error
        self.network = network
        self.dim = network.num_features
        trained = timm.data.resolve_model_data_config(network)
        self.size = trained["input_size"][-1]
        self.mean, self.std = trained["mean"], trained["std"]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Scale, normalise, run the network."""
        return self.network(normalised(images, self.size, self.mean, self.std))
