"""What each feature space is to a finetuned model: optimised, selection, or held-out.

A space has one role, and so has the network that it reads: no judge was optimised. Of a model
whose run is not there, a role is unknown.
"""

from collections.abc import Mapping
from itertools import combinations

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.kinship import shared_network
from mmd_ddm.jobs.origin import Origin

__all__ = ["check_distinct", "roles_of", "roles_to_runs"]

_ELSEWHERE = "choose another space for objective.features, select.features or judges"
_WORST_FIRST = ("optimised", "selection", "unknown", "held-out")


def roles_of(config: FinetuneConfig) -> dict[str, str]:
    """The role of every space of a finetuning, by its name.

    Raises:
        ValueError: a space with two roles.
    """
    roles: dict[str, str] = {}
    for names, role in (
        (config.optimised, "optimised"),
        ((config.select.features,), "selection"),
        (config.judges, "held-out"),
    ):
        for name in names:
            if name in roles:
                raise ValueError(f"{name} cannot be {role} as well as {roles[name]}: {_ELSEWHERE}")
            roles[name] = role
    return roles


def check_distinct(phis: Mapping[str, FeatureExtractor], roles: Mapping[str, str]) -> None:
    """One network in two roles would be its own judge.

    Raises:
        ValueError: two spaces of other roles that read one network, or two that are one.
    """
    for (one, phi), (other, its) in combinations(phis.items(), 2):
        if roles[one] == roles[other] and phi.sha256 != its.sha256:
            continue  # two readings in one role judge nothing
        if reason := shared_network(phi, its):
            raise ValueError(
                f"{one} cannot be {roles[one]} and {other} {roles[other]}, for {reason}: "
                f"{_ELSEWHERE}"
            )


def roles_to_runs(
    phis: Mapping[str, FeatureExtractor],
    runs: Mapping[str, Origin | None],
    channels: int,
    *,
    otherwise: str = "held-out",
) -> dict[str, str]:
    """What spaces are to finetuned models: the worst that the network of each was to any of them.

    Args:
        phis: the spaces, by name.
        runs: what `origins` gives.
        channels: of the images.
        otherwise: the role of what no run optimised or selected by.
    """
    found = dict.fromkeys(phis, otherwise)
    loaded: dict[str, FeatureExtractor | None] = dict(phis)
    for origin in runs.values():
        used = roles_of(origin.config) if origin else {}
        if origin:
            for other in used.keys() - loaded.keys():
                loaded[other] = _load(origin, other, channels)
        for name, phi in phis.items():
            roles = [found[name], used.get(name, "held-out" if used else "unknown")]
            for other, role in used.items():
                its = loaded[other]
                if role != "held-out" and its and shared_network(phi, its):
                    roles.append(role)
                elif its is None and name not in used:
                    roles.append("unknown")
            found[name] = min(roles, key=_WORST_FIRST.index)
    return found


def _load(origin: Origin, name: str, channels: int) -> FeatureExtractor | None:
    try:
        return origin.features(name, channels)
    except ValueError:  # its weights are gone, or it is a person's code
        return None
