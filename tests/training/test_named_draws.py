"""What an iteration sees: noise, rows and rate, named by seed and step alone, worked out by hand.

At a rate of 0 the weights stay, so that the loss of every iteration can be computed beside it.
"""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from commands import make_head
from small_net import SmallNet
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mmd_ddm.config import FinetuneConfig, HeadConfig, ObjectiveConfig, PretrainConfig
from mmd_ddm.data.images import batch
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.genie_head import derivative
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.genie_head import distil
from mmd_ddm.training.losses.denoising import denoising_loss, mirrored_half
from mmd_ddm.training.losses.derivative import distillation_loss
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective
from mmd_ddm.training.pretrain import learning_rate, pretrain

SEED, STEPS, BATCH = 5, 3, 4
COMMON = {"iterations": STEPS, "batch_size": BATCH, "seed": SEED, "save_every": 2}
FINETUNE = FinetuneConfig(**COMMON, lr=0.0, objective=ObjectiveConfig(reference="minibatch"))
PRETRAIN = PretrainConfig(**COMMON, lr=0.0, warmup=0)
HEAD = HeadConfig(**COMMON, lr=0.0)


class Net(SmallNet):
    """With a layer whose input is what GENIE's head sees."""

    def __init__(self):
        super().__init__()
        self.conv_norm_out = nn.Identity()

    def forward(self, x, t):
        shift = self.time(t.to(x.dtype)[:, None] / 1000)[:, :, None, None]
        return self.out(self.conv_norm_out(torch.tanh(self.conv(x) + shift)))


def make():
    torch.manual_seed(0)
    return UNet2D(Net(), NoiseSchedule.linear(), shape=(1, 8, 8))


def pixels(n=30):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=draw).to(torch.uint8)


def answering_head():
    """One that does not answer 0."""
    head = make_head()
    draw = torch.Generator().manual_seed(0)
    nn.init.normal_(head.conv_out.weight, std=0.1, generator=draw)
    return head


def run(config, path):
    """Run the loop of these settings: the events it told of, and the rate of every step."""
    events, rates = [], []

    def told(**event):
        events.append(event)

    with watched(rates):
        if isinstance(config, PretrainConfig):
            pretrain(config, make(), pixels(), path, told)
        elif isinstance(config, HeadConfig):
            distil(config, make(), answering_head(), pixels(), path, told)
        else:
            sampler = make_sampler("ddim", make(), (600, 200))
            finetune(config, sampler, [objective()], path, told)
    return events, rates


@contextmanager
def watched(rates):
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    try:
        yield
    finally:
        hook.remove()


def objective():
    phi = Pixels(1)
    return Objective.over(phi, phi(from_uint8(pixels())), Polynomial(), standardise=False)


def losses_of_finetuning(step):
    sampler = make_sampler("ddim", make(), (600, 200))
    draw = generator(SEED, 0, step, "finetune")
    z = torch.randn((1, BATCH, 1, 8, 8), generator=draw)
    return mmd_step(sampler, [objective()], z[0], rows=batch(30, BATCH, SEED, step))


def losses_of_pretraining(step, flip):
    draw = generator(SEED, 0, step, "pretrain")
    x_0, denoiser = from_uint8(pixels()[batch(30, BATCH, SEED, step)]), make()
    x_0 = mirrored_half(x_0, draw) if flip else x_0
    return denoising_loss(denoiser, denoiser.network, x_0, draw)


def test_finetuning_draws_its_noise_and_its_rows_by_seed_and_step(tmp_path):
    events, _ = run(FINETUNE, tmp_path / "c")
    expected = [float(losses_of_finetuning(step).detach()) for step in range(STEPS)]
    assert [event["loss"] for event in events if event["event"] == "train"] == pytest.approx(
        expected, rel=1e-5
    )
    assert len(set(expected)) == STEPS


@pytest.mark.parametrize("flip", [False, True])
def test_pretraining_draws_its_noise_and_its_rows_by_seed_and_step(flip, tmp_path):
    """Told once, at the end: the mean over the iterations since the last word."""
    (event,), _ = run(replace(PRETRAIN, flip=flip), tmp_path / "c")
    expected = [float(losses_of_pretraining(step, flip).detach()) for step in range(STEPS)]
    assert event["loss"] == pytest.approx(sum(expected) / STEPS, rel=1e-5)
    assert {**event, "loss": 0, "seconds": 0} == {
        "event": "train", "step": STEPS, "loss": 0, "images": STEPS * BATCH, "seconds": 0,
    }  # fmt: skip
    assert 0 < event["seconds"] < 600
    (other,), _ = run(replace(PRETRAIN, flip=not flip), tmp_path / "d")
    assert other["loss"] != event["loss"]


def test_distillation_draws_its_noise_and_its_rows_by_seed_and_step(tmp_path):
    """Told at the end, of the last iteration."""
    draw = generator(SEED, 0, STEPS - 1, "genie-head")
    x_0 = from_uint8(pixels()[batch(30, BATCH, SEED, STEPS - 1)])
    expected = float(distillation_loss(make(), answering_head(), x_0, draw).detach())
    events, _ = run(HEAD, tmp_path / "c")
    assert events == [{"event": "train", "step": STEPS, "loss": pytest.approx(expected, rel=1e-5)}]


def test_distillation_tells_of_what_it_skips(tmp_path):
    head, events = answering_head(), []
    nn.init.constant_(head.conv_out.bias, math.nan)
    config = replace(HEAD, iterations=1)
    distil(config, make(), head, pixels(), tmp_path / "c", lambda **event: events.append(event))
    assert [(event["event"], event["step"]) for event in events] == [("train", 1), ("fault", 1)]


def test_pretraining_tells_of_what_it_skips(tmp_path):
    denoiser, events = make(), []
    nn.init.constant_(denoiser.network.out.bias, math.nan)
    config = replace(PRETRAIN, iterations=1)
    pretrain(config, denoiser, pixels(), tmp_path / "c", lambda **event: events.append(event))
    assert [(event["event"], event["step"]) for event in events] == [("train", 1), ("fault", 1)]


def test_the_distillation_loss_is_that_of_plain_loops():
    denoiser, head, x_0 = make(), answering_head(), from_uint8(pixels()[:BATCH])
    loss = distillation_loss(denoiser, head, x_0, torch.Generator().manual_seed(3))
    again, schedule = torch.Generator().manual_seed(3), denoiser.schedule
    times = torch.randint(1000, (BATCH,), generator=again)
    z = torch.randn(x_0.shape, generator=again)
    errors = []
    for i, t in enumerate(times.tolist()):
        alpha, sigma = schedule(t)
        x_t = (alpha * x_0 + sigma * z)[i : i + 1]
        with torch.no_grad():
            eps = denoiser(x_t, t)
            exact = derivative(
                denoiser, x_t, t, alpha * (eps - sigma * x_t), 1 / schedule.rho_slope(t)
            )
            net = denoiser.network
            features = torch.tanh(
                net.conv(x_t) + net.time(torch.tensor([[t / 1000]]))[..., None, None]
            )
        rho = torch.full((1, 1, 1, 1), sigma / alpha)
        slope = head(x_t, torch.tensor([float(t)]), eps, features, rho)
        errors.append((rho * (slope - exact)).square().mean())
    assert float(loss.detach()) == pytest.approx(float(sum(errors).detach()) / BATCH, rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in denoiser.network.parameters())
    assert head.conv_out.weight.grad.norm() > 0


COSINE = [0.1 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (replace(FINETUNE, cosine=True), COSINE),
        (replace(FINETUNE, cosine=False), [0.1] * 4),
        (HEAD, COSINE),
    ],
)
def test_rates_are_constant_or_fall_on_a_cosine(config, expected, tmp_path):
    """From ``lr`` at the first iteration towards 0 behind the last."""
    _, rates = run(replace(config, lr=0.1, iterations=4), tmp_path / "c")
    assert rates == pytest.approx(expected)


def test_pretraining_warms_up_then_falls(tmp_path):
    config = replace(PRETRAIN, lr=0.1, iterations=6, warmup=2)
    _, rates = run(config, tmp_path / "c")
    assert rates == pytest.approx([0.05, 0.1, *COSINE])
    assert rates == [learning_rate(config, step) for step in range(6)]
