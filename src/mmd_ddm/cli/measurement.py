"""A model measured against real images: what ``mmd-ddm evaluate`` runs.

The generated images are compared with the whole of the real ones. The floor is taken between two
random halves of the same real images, so that no second set is needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmd_ddm.bank import cached_features
from mmd_ddm.build import Model
from mmd_ddm.cli.console import progress_bar
from mmd_ddm.cli.judging import evaluate_chain, protocol
from mmd_ddm.config import ChainConfig, FinetuneConfig, from_mapping
from mmd_ddm.data import ImageSet
from mmd_ddm.evaluate import Space
from mmd_ddm.features import make_features
from mmd_ddm.rng import generator
from mmd_ddm.runlog import read_json

__all__ = ["DEFAULT_SPACES", "measure", "read_roles"]

DEFAULT_SPACES = ("efficientnet-lite0", "encoder", "random", "pixels")


def read_roles(run: Path) -> dict[str, str]:
    """What each feature space was to the finetuning in this folder; empty if there was none.

    Args:
        run: a run folder, or the model/ in it.

    Raises:
        ValueError: a record that cannot be read.
    """
    record = (run.parent if run.name == "model" else run) / "run.json"
    about = read_json(record) if record.is_file() else {}
    if about.get("verb") != "finetune":
        return {}
    config = from_mapping(FinetuneConfig, about.get("settings", {}))
    roles = dict.fromkeys(config.objective.features, "optimised")
    roles[config.select.features] = "selection"
    return roles | dict.fromkeys(config.judges, "held-out")


def measure(
    model: Model,
    chains: Sequence[ChainConfig],
    images: ImageSet,
    roles: dict[str, str],
    *,
    n: int,
    seed: int,
) -> dict[str, Any]:
    """The content of ``results.json``: a row a chain, every space with its role and floor.

    Args:
        model: on its device.
        chains: with their times filled in.
        images: the real ones.
        roles: of every space to measure in, by its name.
        n: images to draw.
        seed: of the first.

    Raises:
        ValueError: an unknown space, or too few images.
    """
    if n < 2 or len(images) < 4:
        raise ValueError(
            f"at least 2 drawn and 4 real images are needed; got -n {n} and {len(images)} in "
            f"{images.source}"
        )
    spaces, about = [], {}
    order = torch.randperm(len(images), generator=generator(seed, 0, 0, "floor"))
    half = len(images) // 2
    device = model.denoiser.device
    phis = [make_features(name, model.denoiser.shape[0]).to(device) for name in roles]
    with progress_bar("features of the data", len(phis)) as bar:
        for (name, role), phi in zip(roles.items(), phis, strict=True):
            real = cached_features(images, phi, device=device).to(device)
            halves = real[order[:half]], real[order[half:]]
            spaces.append(Space(name, role, phi, real, real))
            about[name] = Space(name, role, phi, *halves).describe()
            bar(advance=1, note=name)
    row_name = "base" if model.chain is None else "finetuned"
    return {
        "protocol": {
            **protocol(images, n, seed),
            "floor": f"two random halves of the real images, {half} and {len(images) - half}",
        },
        "spaces": about,
        "rows": [evaluate_chain(row_name, model, chain, n, seed, spaces)[0] for chain in chains],
    }
