"""Reward finetuning: which part of the gradient is taken."""

import pytest
import torch
from gaussian import GaussianDenoiser, PerTime, noise
from torch.testing import assert_close

from mmd_ddm.config import ChainConfig, FinetuneConfig, RewardConfig, SelectConfig
from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune, trained_steps
from mmd_ddm.training.losses.base import Source
from mmd_ddm.training.losses.reward import Reward, repeated_loss

TIMES = (900, 700, 500, 300, 100)


class Brightness(FeatureExtractor):
    """0.4 is best."""

    name = "brightness"

    def forward(self, images):
        return -(images - 0.4).square().mean((1, 2, 3))[:, None]


def gradient(steps):
    student = PerTime(TIMES)
    chain = make_sampler("ddim", student, TIMES)
    chain.trained_steps = steps
    loss = -Brightness()(chain(0.3 * noise(6))).mean()
    return torch.autograd.grad(loss, student.network.weights)[0]


@pytest.mark.parametrize("last", [1, 3])
def test_the_last_calls_have_their_part_of_the_whole_gradient(last):
    config = FinetuneConfig(chain=ChainConfig(backward=f"last-{last}"))
    own = gradient(trained_steps(config, 5, 0))
    whole = gradient(None)
    assert own[: 5 - last].abs().max() == 0
    assert_close(own[5 - last :], whole[5 - last :])


def test_repetitions_have_the_same_mean_and_less_variance():
    student = PerTime(TIMES)
    chain, n = make_sampler("ddim", student, TIMES), 300
    x_0 = 0.5 * noise(n)

    def gradients(k):
        z = torch.randn(k, *x_0.shape, generator=torch.Generator().manual_seed(k)).double()
        losses = repeated_loss(chain, lambda x: Brightness()(x)[:, 0], x_0, z)
        found = [torch.autograd.grad(one, student.network.weights, retain_graph=True)[0][-1]
                 for one in losses]  # fmt: skip
        return torch.stack(found)

    single, several = gradients(1), gradients(8)
    assert several.var() < single.var()
    assert abs(several.mean() - single.mean()) < 4 * (single.var() / n) ** 0.5


@pytest.mark.parametrize("repeats", [0, 2])
def test_the_reward_rises(repeats, tmp_path):
    student, events = PerTime(TIMES), []
    chain = make_sampler("ddim", student, TIMES)
    config = FinetuneConfig(
        method="reward", reward=RewardConfig("brightness", repeats), iterations=20, batch_size=8,
        lr=0.02, ema_decay=0.0, select=SelectConfig(every=0),
    )  # fmt: skip
    loss = Reward(config, Source(reward=Brightness()))
    finetune(config, chain, (), tmp_path / "c", lambda **e: events.append(e), loss=loss)
    x_T = noise(50, seed=5)
    with torch.no_grad():
        base = make_sampler("ddim", GaussianDenoiser(), TIMES)
        assert Brightness()(chain(x_T)).mean() > Brightness()(base(x_T)).mean()


def test_a_reward_is_one_number_an_image(tmp_path):
    class Two(Brightness):
        name = "two"

        def forward(self, images):
            return super().forward(images).expand(-1, 2)

    config = FinetuneConfig(method="reward", reward=RewardConfig("two"), batch_size=2)
    loss = Reward(config, Source(reward=Two()))
    with pytest.raises(ValueError, match="two gives 2 numbers an image"):
        loss(make_sampler("ddim", PerTime(TIMES), TIMES), 0, 2)
    with pytest.raises(ValueError, match=r"reward\.of is empty"):
        FinetuneConfig(method="reward")
