"""What a method takes, said ahead, is what it takes: network calls are counted."""

import pytest
import torch
from gaussian import PerTime

from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.methods import ConsistencyConfig, RewardConfig, ScoreConfig, TeacherConfig
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import trained_steps, walked_cost
from mmd_ddm.training.losses.base import Cost, Source
from mmd_ddm.training.losses.registry import METHODS, make_loss

TIMES = (900, 600, 300)
FINE = (900, 800, 600, 500, 300, 100)
LAST = ChainConfig(3, backward="last-2")
CASES = {
    "endpoint": FinetuneConfig(method="endpoint", chain=LAST),
    "endpoint, local": FinetuneConfig(method="endpoint", teacher=TeacherConfig(local=1)),
    "pairs": FinetuneConfig(method="pairs", teacher=TeacherConfig(pairs=16)),
    "progressive": FinetuneConfig(method="progressive"),
    "consistency": FinetuneConfig(method="consistency"),
    "consistency, of the base": FinetuneConfig(
        method="consistency", consistency=ConsistencyConfig(teacher=True)
    ),
    "score": FinetuneConfig(method="score", chain=LAST, score=ScoreConfig(updates=2)),
    "reward": FinetuneConfig(method="reward", chain=LAST, reward=RewardConfig("import:x:y")),
    "reward, repeated": FinetuneConfig(
        method="reward", reward=RewardConfig("import:x:y", repeats=2)
    ),
}


class Counted(PerTime):
    """Counts the images of its calls, without gradient and with."""

    calls = [0, 0]  # noqa: RUF012

    def forward(self, x_t, t, condition=None):
        Counted.calls[torch.is_grad_enabled()] += len(x_t)
        return super().forward(x_t, t, condition)


class Mean(FeatureExtractor):
    name = "mean"

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize("case", CASES)
def test_as_many_calls_as_said(case):
    config = CASES[case]
    size, local = config.batch_size, config.teacher.local
    chain = make_sampler("ddim", Counted(TIMES), TIMES)
    teacher = make_sampler("ddim", Counted(TIMES), TIMES if config.method == "score" else FINE)
    images = torch.zeros(50, 1, 2, 2, dtype=torch.uint8)
    taught = config.method != "consistency" or config.consistency.teacher
    Counted.calls[:] = 0, 0
    source = Source(images=images, teacher=teacher if taught else None, reward=Mean())
    loss = make_loss(config, source, chain)
    counted = [*Counted.calls]
    fine = len(FINE) if taught else 0
    said = METHODS[config.method].cost(config, walked_cost(config, chain), fine)
    Counted.calls[:] = counted
    assert Counted.calls[0] == said.once
    Counted.calls[:] = 0, 0
    steps = 6  # in which the critic has its turns
    for step in range(steps):
        chain.trained_steps = None if local else trained_steps(config, len(TIMES), step)
        loss(chain, step, size)
    plain, trained = (count / (size * steps) for count in Counted.calls)
    assert (plain, trained) == (pytest.approx(said.plain), pytest.approx(said.trained))


def test_mmd_takes_the_chain_alone():
    config = FinetuneConfig(chain=ChainConfig(10, backward="random-3"))
    times = tuple(range(950, 0, -100))
    said = METHODS["mmd"].cost(
        config, walked_cost(config, make_sampler("ddim", Counted(times), times))
    )
    assert said == Cost(7, 3)
    assert said.each == 16


def test_steps_of_several_calls_are_counted_by_their_calls():
    """Heun takes two a step, and one in the last, which goes into the data."""
    config = FinetuneConfig(chain=ChainConfig(3, sampler="heun", backward="last-2"))
    assert walked_cost(config, make_sampler("heun", Counted(TIMES), TIMES)) == Cost(2, 3)


def test_passes_pay_for_so_many_iterations():
    assert Cost(0, 5).iterations(28_800, 32) == 60
    assert Cost(2, 1, once=800).iterations(28_800, 64) == 87
