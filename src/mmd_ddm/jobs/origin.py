"""The run that a finetuned model came from: in which spaces, and on which images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmd_ddm.config import FinetuneConfig, from_mapping
from mmd_ddm.data.images import Split
from mmd_ddm.jobs.build import Model, build_data
from mmd_ddm.runs.files import read_json

__all__ = ["Origin", "origins"]


@dataclass(frozen=True)
class Origin:
    """What a run of finetune recorded.

    Attributes:
        config: its settings.
        inputs: hashes of what it began with.
    """

    config: FinetuneConfig
    inputs: Mapping[str, str]

    def data(self, shape: tuple[int, int, int]) -> Split:
        """Its images, as it had them apart.

        Raises:
            ValueError: they cannot be loaded any more, or are others now.
        """
        split = build_data(self.config, shape)
        if any(self.inputs.get(key, found) != found for key, found in split.hashes.items()):
            raise ValueError(f"{split.matched.source} holds other images now")
        return split


def origins(models: Iterable[Model]) -> dict[str, Origin | None]:
    """The runs of the finetuned ones among these models, by name; None where a run is not there.

    Raises:
        ValueError: a record that cannot be read.
    """
    return {model.name: _origin(Path(model.name)) for model in models if model.chain is not None}


def _origin(run: Path) -> Origin | None:
    record = (run.parent if run.name == "model" else run) / "run.json"
    about = read_json(record) if record.is_file() else {}
    if about.get("verb") != "finetune":
        return None
    config = from_mapping(FinetuneConfig, about.get("settings", {}))
    return Origin(config, about.get("inputs", {}))
