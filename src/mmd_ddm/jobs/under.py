"""What the images of a finetuning are drawn under: the classes or captions of those to match."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmd_ddm.config import ConditionConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.texts import embed_texts
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.protocol import Denoiser

__all__ = ["Under", "conditions_of"]


@dataclass(frozen=True)
class Under:
    """Nothing, by default.

    Attributes:
        labels: [m], which condition each image to match has, by its number.
        conditions: of captions, all of them by these numbers, as the network is told them.
        mix: of the per-condition term in the loss; None where conditions are not matched.
        vectors: text embeddings of captions that are matched.
    """

    labels: Int64[Tensor, " m"] | None = None
    conditions: Condition | None = None
    mix: float | None = None
    vectors: Float[Tensor, "c d"] | None = None

    @property
    def to_match(self) -> dict[str, Any]:
        """As `build_objectives` takes it."""
        if self.mix is None or self.labels is None:
            return {}
        return {"labels": self.labels, "mix": self.mix, "vectors": self.vectors}


def conditions_of(
    config: ConditionConfig, denoiser: Denoiser, images: ImageSet, device: torch.device
) -> Under:
    """Those of the images to match, for this model.

    Raises:
        ValueError: a text encoder that cannot be had.
    """
    mix = config.class_share
    if not denoiser.of_captions:
        return Under(images.labels if denoiser.classes else None, None, mix)
    texts = sorted({*images.captions})
    number = {text: i for i, text in enumerate(texts)}
    labels = torch.tensor([number[text] for text in images.captions])
    vectors = None if mix is None else embed_texts(texts, config.text, device=device)
    return Under(labels, denoiser.encode(texts), mix, vectors)
