"""What images are drawn under: classes, captions, or whatever a network is told of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Condition"]


@dataclass(frozen=True)
class Condition:
    """What a network is told beside x_t and t, an image each along the first axis.

    Attributes:
        tensors: by the names that the network calls them by.
        labels: int64, [n], which of the data's conditions each is: its class, or the number of
            its caption.
    """

    tensors: Mapping[str, Tensor]
    labels: Tensor

    @classmethod
    def of_labels(cls, labels: Tensor | Sequence[int]) -> "Condition":
        """The classes of images, [n]."""
        classes = torch.as_tensor(labels)
        return cls({"class_labels": classes}, classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> "Condition":
        """That of these images: a slice, indices or a mask."""
        return self._each(lambda tensor: tensor[rows])

    def of_seeds(self, seeds: Sequence[int]) -> "Condition":
        """One for each seed, named by it: that of image number seed modulo how many there are."""
        return self[torch.tensor([seed % len(self) for seed in seeds], dtype=torch.long)]

    def to(self, device: torch.device) -> "Condition":
        """On this device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        tensors = {name: change(tensor) for name, tensor in self.tensors.items()}
        return Condition(tensors, change(self.labels))
