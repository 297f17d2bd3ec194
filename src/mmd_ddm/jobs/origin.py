"""The run that a finetuned model came from: in which spaces, and on which images.

What its record names, and is not here, is looked for where its command ran.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.data.choose import find_place
from mmd_ddm.data.images import BUNDLED, Split
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.registry import make_recorded
from mmd_ddm.jobs.build import Model, build_data
from mmd_ddm.models.find import BUNDLED_MODELS
from mmd_ddm.runs.files import read_json
from mmd_ddm.settings import from_mapping

__all__ = ["Origin", "origins", "recorded_place"]


@dataclass(frozen=True)
class Origin:
    """What a run of finetune recorded.

    Attributes:
        config: its settings, with places as they are found from here.
        inputs: hashes of what it began with.
        folder: where its command ran.
    """

    config: FinetuneConfig
    inputs: Mapping[str, str]
    folder: Path = Path()

    @classmethod
    def read(cls, run: Path) -> "Origin | None":
        """Of a run's folder, or its model's; None of a run of another verb, or of none.

        Raises:
            ValueError: a record that cannot be read.
        """
        record = (run.parent if run.name == "model" else run) / "run.json"
        about = read_json(record) if record.is_file() else {}
        if about.get("verb") != "finetune":
            return None
        folder = Path(about.get("folder", ""))
        config = from_mapping(FinetuneConfig, about.get("settings", {}))
        found = replace(
            config,
            model=recorded_place(config.model, folder),
            data=recorded_place(config.data, folder),
            heldout=recorded_place(config.heldout, folder),
        )
        return cls(found, about.get("inputs", {}), folder)

    def data(self, shape: tuple[int, int, int]) -> Split:
        """Its images, as it had them apart.

        Raises:
            ValueError: they cannot be loaded any more, or are others now.
        """
        split = build_data(self.config, shape, labels=self.labelled, captions=self.captioned)
        if any(self.inputs.get(key, found) != found for key, found in split.hashes.items()):
            raise ValueError(f"{split.matched.source} holds other images now")
        return split

    @property
    def labelled(self) -> bool:
        """Whether it knew which class each image is of."""
        return "data_labels_sha256" in self.inputs

    @property
    def captioned(self) -> bool:
        """Likewise its caption."""
        return "data_captions_sha256" in self.inputs

    def features(self, name: str, channels: int) -> FeatureExtractor:
        """A space of that run: `make_recorded`."""
        return make_recorded(name, channels, partial(recorded_place, folder=self.folder))


def recorded_place(name: str, folder: Path) -> str:
    """A path that is not here, if it is there, from here; any other name as it is."""
    known = not name or name in BUNDLED or name in BUNDLED_MODELS
    here = known or find_place(name) or not find_place(str(folder / name))
    return name if here else str(folder / name)


def origins(models: Iterable[Model]) -> dict[str, Origin | None]:
    """The runs of the finetuned ones among these models, by name; None where a run is not there.

    Raises:
        ValueError: a record that cannot be read.
    """
    return {
        model.name: Origin.read(Path(model.name)) for model in models if model.chain is not None
    }
