"""What each feature space is to a finetuned model: optimised, selection, or held-out.

A space has one role, so that no judge was optimised.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmd_ddm.config import FinetuneConfig, from_mapping
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.runs.files import read_json

__all__ = ["check_distinct", "roles_of", "roles_of_run", "roles_to_runs"]

_ELSEWHERE = "choose another space for objective.features, select.features or judges"


def roles_of(config: FinetuneConfig) -> dict[str, str]:
    """The role of every space of a finetuning, by its name.

    Raises:
        ValueError: a space with two roles.
    """
    roles: dict[str, str] = {}
    for names, role in (
        (config.objective.features, "optimised"),
        ((config.select.features,), "selection"),
        (config.judges, "held-out"),
    ):
        for name in names:
            if name in roles:
                raise ValueError(f"{name} cannot be {role} as well as {roles[name]}: {_ELSEWHERE}")
            roles[name] = role
    return roles


def check_distinct(phis: Mapping[str, FeatureExtractor]) -> None:
    """One network under two names would be its own judge.

    Raises:
        ValueError: two spaces with equal weights.
    """
    names: dict[str, str] = {}
    for name, phi in phis.items():
        other = names.setdefault(phi.sha256, name)
        if other != name:
            raise ValueError(
                f"{name} and {other} are one feature space, with equal weights: {_ELSEWHERE}"
            )


def roles_of_run(run: Path) -> dict[str, str]:
    """The same of the finetuning in this folder; empty if there was none.

    Args:
        run: a run folder, or the model/ in it.

    Raises:
        ValueError: a record that cannot be read.
    """
    record = (run.parent if run.name == "model" else run) / "run.json"
    about = read_json(record) if record.is_file() else {}
    if about.get("verb") != "finetune":
        return {}
    return roles_of(from_mapping(FinetuneConfig, about.get("settings", {})))


def roles_to_runs(runs: Sequence[str]) -> dict[str, str]:
    """What spaces were to these runs, by the hash of their weights; ``other`` is every other one.

    A space that any run optimised is no judge of the others, whatever it was to them.
    """
    roles = {"other": "held-out"}
    for run in runs:
        record = Path(run) / "results.json"
        if not record.is_file():
            roles["other"] = "not known"  # a model without its run says not what it was made by
            continue
        for space in read_json(record)["spaces"].values():
            if space["role"] != "held-out" and roles.get(space["sha256"]) != "optimised":
                roles[space["sha256"]] = space["role"]
    return roles
