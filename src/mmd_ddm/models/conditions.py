"""What images are drawn under: class labels, of a class-conditional model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Condition"]

_LABELS = "class_labels"


@dataclass(frozen=True)
class Condition:
    """What a network is told beside x_t and t, an image each along the first axis.

    Attributes:
        tensors: by the names that the network calls them by.
    """

    tensors: Mapping[str, Tensor]

    @classmethod
    def of_labels(cls, labels: Tensor | Sequence[int]) -> "Condition":
        """The classes of images, [n]."""
        return cls({_LABELS: torch.as_tensor(labels)})

    @property
    def labels(self) -> Tensor:
        """The classes, int64, [n]."""
        return self.tensors[_LABELS]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Any) -> "Condition":
        """That of these images: a slice, indices or a mask."""
        return Condition({name: tensor[rows] for name, tensor in self.tensors.items()})

    def of_seeds(self, seeds: Sequence[int]) -> "Condition":
        """One for each seed, named by it: that of image number seed modulo how many there are."""
        return self[torch.tensor([seed % len(self) for seed in seeds], dtype=torch.long)]

    def to(self, device: torch.device) -> "Condition":
        """On this device."""
        return Condition({name: tensor.to(device) for name, tensor in self.tensors.items()})
