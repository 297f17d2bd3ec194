"""Settings of the methods of finetuning, each with its own; docs/methods.md says what they do."""

from dataclasses import dataclass
from typing import Any

from mmd_ddm.settings import at_least as _at_least

__all__ = [
    "METHODS",
    "ConsistencyConfig",
    "ProgressiveConfig",
    "RewardConfig",
    "ScoreConfig",
    "TeacherConfig",
    "check_method",
]

_OF_CHAINS = ("mmd", "endpoint", "pairs", "reward")
METHODS = (*_OF_CHAINS, "progressive", "consistency", "score")


@dataclass(frozen=True)
class TeacherConfig:
    """The base's longer chain, which the methods endpoint and pairs distil."""

    steps: int = 20  # of the teacher, at midpoint times
    sampler: str = "unipc"  # that walks them, by name
    local: int = 0  # endpoint, step by step: so many times between two of the chain; 0 is the end
    pairs: int = 10_000  # pairs: so many are drawn, once

    def __post_init__(self) -> None:
        _at_least(self, "teacher.", steps=1, local=0, pairs=2)


@dataclass(frozen=True)
class ProgressiveConfig:
    """Progressive distillation."""

    rounds: int = 1  # of halving: the first teacher takes chain.steps times 2 to this power

    def __post_init__(self) -> None:
        _at_least(self, "progressive.", rounds=1)


@dataclass(frozen=True)
class ConsistencyConfig:
    """Consistency tuning to the images or, with a teacher, distillation of the base."""

    teacher: bool = False  # distil the base instead of tuning to the images
    stages: int = 4  # of tuning, from denoising towards neighbouring levels
    q: float = 2.0  # of tuning, by which the gap between levels shrinks in each
    scales: int = 18  # of distillation: levels of the grid

    def __post_init__(self) -> None:
        _at_least(self, "consistency.", stages=1, q=1, scales=2)


@dataclass(frozen=True)
class ScoreConfig:
    """Distribution matching distillation: the critic."""

    updates: int = 5  # iterations of the critic to each of the chain
    critic_rate: float = 1.0  # of the critic, in multiples of lr
    beta1: float = 0.0  # of Adam, for both

    def __post_init__(self) -> None:
        _at_least(self, "score.", updates=1, critic_rate=0, beta1=0)


@dataclass(frozen=True)
class RewardConfig:
    """Reward finetuning."""

    of: str = ""  # one number an image, named as spaces are: import:MODULE:NAME
    repeats: int = 0  # DRaFT-LV: the last step, so many times; 0 is the chain as it is

    def __post_init__(self) -> None:
        _at_least(self, "reward.", repeats=0)


def check_method(config: Any) -> None:
    """What each method asks of the chain and of what is trained.

    Args:
        config: a `FinetuneConfig`.

    Raises:
        ValueError: an unknown method, or settings that it has no use for.
    """
    method, chain = config.method, config.chain
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}; got {method!r}")
    if config.trained_numbers and method not in _OF_CHAINS:
        raise ValueError(
            f"method {method} trains no numbers of the chain: set trained to weights alone, or "
            f"take {', '.join(_OF_CHAINS)}"
        )
    rounds = config.progressive.rounds
    if method == "progressive" and config.iterations % rounds:
        raise ValueError(
            f"iterations = {config.iterations} cannot be parted into progressive.rounds = {rounds}"
        )
    if method == "reward" and not config.reward.of:
        raise ValueError("reward.of is empty; name one number an image, as import:MODULE:NAME")
    plain = chain.sampler == "ddim" and chain.eta == 0 and not config.budgets
    if method == "progressive" and not plain:
        raise ValueError(
            "method progressive distils one chain of ddim: set chain.sampler = ddim, chain.eta = "
            "0, and give one number of steps"
        )
    if method == "endpoint" and config.teacher.local:
        if chain.sampler != "ddim" or config.trained_numbers or len(config.budgets) > 1:
            raise ValueError(
                "teacher.local distils the steps of one ddim chain at given times: set "
                "chain.sampler = ddim, train weights alone, and give one number of steps"
            )
