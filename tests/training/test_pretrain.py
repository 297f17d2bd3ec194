"""The denoising loss, and the loop that made the bundled base."""

import math
import time
from dataclasses import replace
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
import torch
from small_net import SmallNet
from torch import nn

from mmd_ddm.config import PretrainConfig
from mmd_ddm.maths.continuous import FlowSchedule, SigmaSchedule
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.edm import EDMUNet2D
from mmd_ddm.models.families.flow import FlowUNet2D
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.training.losses.denoising import denoising_loss, mirrored_half
from mmd_ddm.training.pretrain import learning_rate, pretrain

CONFIG = PretrainConfig(iterations=6, batch_size=8, lr=1e-2, warmup=2, ema_decay=0.5, save_every=4)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(prediction="epsilon"):
    torch.manual_seed(0)
    return UNet2D(SmallNet(), NoiseSchedule.linear(), prediction, shape=(1, 6, 6))


def pixels(n=30):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 1, 6, 6), generator=generator).to(torch.uint8)


def ignore(**event):
    pass


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def train(config, path, on_event=ignore):
    denoiser = make()
    done = pretrain(config, denoiser, pixels(), path, on_event)
    return done, weights(denoiser.network)


def saved(path, key):
    return torch.load(path, weights_only=True)[key]


# The loss


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_that_of_plain_loops(prediction):
    denoiser, x_0 = make(prediction), torch.rand((5, 1, 6, 6)) * 2 - 1
    loss = denoising_loss(denoiser, denoiser.network, x_0, torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    times = torch.randint(1000, (5,), generator=again)
    eps = torch.randn(x_0.shape, generator=again)
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    errors = []
    for x, e, t in zip(x_0, eps, times, strict=True):
        alpha, sigma = float(alpha_bar[t] ** 0.5), float((1 - alpha_bar[t]) ** 0.5)
        target = {"epsilon": e, "sample": x, "v_prediction": alpha * e - sigma * x}[prediction]
        output = denoiser.network((alpha * x + sigma * e)[None], t[None])[0]
        errors += [(output - target).square().flatten()]
    assert float(loss.detach()) == pytest.approx(
        float(torch.cat(errors).mean().detach()), rel=1e-5
    )


def test_the_answer_of_a_network_of_diffusers_is_unpacked():
    class Wrapped(SmallNet):
        def forward(self, x_t, t):
            return SimpleNamespace(sample=super().forward(x_t, t))

    denoiser, x_0 = make(), torch.rand((5, 1, 6, 6)) * 2 - 1
    torch.manual_seed(0)
    losses = [
        float(denoising_loss(denoiser, network, x_0, torch.Generator().manual_seed(3)).detach())
        for network in (denoiser.network, Wrapped())
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_knows_the_answer_has_no_loss(prediction):
    """And what it is trained to say is what the denoiser then reads as eps."""
    denoiser, x_0 = make(prediction), torch.rand((5, 1, 6, 6)) * 2 - 1

    def coefficients(t):
        abar = denoiser.schedule.alpha_bar.to(torch.float32)[t][:, None, None, None]
        return abar.sqrt(), (1 - abar).sqrt()

    class Oracle(SmallNet):
        def forward(self, x_t, t):
            alpha, sigma = coefficients(t)
            eps = (x_t - alpha * x_0) / sigma
            v = alpha * eps - sigma * x_0
            return {"epsilon": eps, "sample": x_0, "v_prediction": v}[prediction]

    denoiser.network = Oracle()
    draw = torch.Generator().manual_seed(0)
    assert float(denoising_loss(denoiser, denoiser.network, x_0, draw)) < 1e-6
    t, eps = torch.tensor([900, 500, 100, 50, 20]), torch.randn(5, 1, 6, 6)
    alpha, sigma = coefficients(t)
    assert torch.allclose(denoiser.eps(alpha * x_0 + sigma * eps, t), eps, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "schedule", "prediction"),
    [
        (FlowUNet2D, FlowSchedule(), "flow_prediction"),
        (EDMUNet2D, SigmaSchedule(), "edm"),
        (EDMUNet2D, SigmaSchedule(), "edm_v"),
    ],
)
def test_flows_and_edm_are_trained_on_what_their_pair_is_read_from(family, schedule, prediction):
    """The loss of a network is that of its x_0, weighted as the sources say.

    A flow: |u - u'|^2 = |x_0 - x_0'|^2 / sigma^2 (Lipman et al., 2023). EDM: lambda |D - x_0|^2
    with lambda = (sigma^2 + s^2) / (sigma s)^2 (Karras et al., 2022, Table 1).
    """
    denoiser = family(SmallNet(), schedule, prediction, shape=(1, 6, 6))
    x_0 = torch.rand((5, 1, 6, 6)) * 2 - 1
    loss = denoising_loss(denoiser, denoiser.network, x_0, torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    t, alpha, sigma = schedule.draw(5, again)
    eps = torch.randn(x_0.shape, generator=again)
    x_t = alpha[:, None, None, None] * x_0 + sigma[:, None, None, None] * eps
    error = (denoiser.predict(x_t, t)[0] - x_0).square().mean((1, 2, 3))
    s = schedule.preconditioning.get("sigma_data", 0.5)
    weight = sigma**-2 if family is FlowUNet2D else (sigma**2 + s**2) / (sigma * s) ** 2
    assert float(loss.detach()) == pytest.approx(float((weight * error).mean().detach()), rel=1e-4)


def test_all_times_are_trained():
    times = []

    class Spy(nn.Module):
        def forward(self, x_t, t):
            times.extend(t.tolist())
            return x_t

    draw = torch.Generator().manual_seed(0)
    denoising_loss(make(), Spy(), torch.zeros(20000, 1, 1, 1), draw)
    assert (min(times), max(times)) == (0, 999)
    assert abs(sum(times) / len(times) - 499.5) < 4 * 289 / math.sqrt(20000)


def test_flips_mirror_half_of_the_images():
    x = torch.rand(2000, 1, 3, 4)
    flipped = mirrored_half(x, torch.Generator().manual_seed(0))
    as_it_was = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (as_it_was ^ mirrored).all()
    assert 900 < int(mirrored.sum()) < 1100


# The loop


def test_learning_rate_warms_up_and_falls_to_zero():
    config = PretrainConfig(lr=0.4, warmup=4, iterations=104)
    rates = [learning_rate(config, step) for step in range(104)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[54] == pytest.approx(0.2)  # half of the way down
    assert rates[29] == pytest.approx(0.2 * (1 + math.sqrt(0.5)))
    assert 0 < rates[-1] < 0.001
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert learning_rate(PretrainConfig(lr=0.4, warmup=0), 0) == 0.4
    assert learning_rate(PretrainConfig(lr=0.4, warmup=8, iterations=4), 3) == 0.2


def test_the_loop_uses_the_learning_rate(tmp_path):
    """Adam's first step is the rate itself, whatever the gradient."""
    base = weights(make().network)
    config = replace(CONFIG, iterations=1, warmup=4, lr=0.4, ema_decay=0.0)
    moved = (train(config, tmp_path / "c")[1] - base).abs()
    assert moved.median() == pytest.approx(0.1, rel=1e-3)


def test_the_loss_goes_down_and_is_told(tmp_path):
    events, config = [], replace(CONFIG, iterations=110, ema_decay=0.9)
    done, _ = train(config, tmp_path / "c", lambda **e: events.append(e))
    assert done
    assert [e["step"] for e in events] == [20, 40, 60, 80, 100, 110]
    assert [e["images"] for e in events] == [160, 320, 480, 640, 800, 880]
    assert set(events[0]) == {"event", "step", "loss", "images", "seconds"}
    assert events[-1]["loss"] < 0.8 * events[0]["loss"]


def test_a_told_loss_is_the_mean_since_the_last(tmp_path, monkeypatch):
    losses, events, mse_loss = [], [], nn.functional.mse_loss

    def spy(*arguments):
        losses.append(mse_loss(*arguments))
        return losses[-1]

    monkeypatch.setattr(nn.functional, "mse_loss", spy)
    train(replace(CONFIG, iterations=25), tmp_path / "c", lambda **e: events.append(e))
    values = [float(loss.detach()) for loss in losses]
    assert events[0]["loss"] == pytest.approx(sum(values[:20]) / 20, rel=1e-5)
    assert events[1]["loss"] == pytest.approx(sum(values[20:]) / 5, rel=1e-5)


def test_the_averaged_weights_end_in_the_network(tmp_path):
    denoiser = make()
    assert pretrain(CONFIG, denoiser, pixels(), tmp_path / "c", ignore)
    average = torch.cat([p.flatten() for p in saved(tmp_path / "c", "ema")["shadow_params"]])
    last = torch.cat([p.flatten() for p in saved(tmp_path / "c", "network").values()])
    assert torch.equal(weights(denoiser.network), average)
    assert not torch.allclose(average, last, atol=1e-4)
    assert not denoiser.network.training


@pytest.mark.parametrize("clip", [0.0, 1e-12])
def test_the_gradient_is_clipped_unless_the_limit_is_zero(clip, tmp_path):
    base = weights(make().network)
    _, trained = train(replace(CONFIG, grad_clip=clip), tmp_path / "c")
    assert ((trained - base).abs().max() > 1e-3) == (clip == 0)


# Resuming


class Killed(Exception):
    pass


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    done, expected = train(CONFIG, tmp_path / "whole")
    assert done
    calls = count(1)

    def killing(*_):
        if next(calls) == 6:
            raise Killed

    def again():
        denoiser = make()
        denoiser.network.register_forward_pre_hook(killing)
        done = pretrain(CONFIG, denoiser, pixels(), tmp_path / "parts", ignore)
        return done, weights(denoiser.network)

    with pytest.raises(Killed):
        again()
    assert saved(tmp_path / "parts", "step") == 4
    done, trained = again()
    assert done
    assert torch.equal(trained, expected)
    assert next(calls) == 9  # two of six iterations were left


def test_minutes_stop_a_run_and_the_same_call_goes_on(tmp_path, monkeypatch):
    """A clock that runs 16 seconds at every look, of which an iteration takes three."""
    expected = train(CONFIG, tmp_path / "whole")[1]
    clock = count()
    monkeypatch.setattr(time, "monotonic", lambda: 16.0 * next(clock))
    config, steps = replace(CONFIG, minutes=2.0), []
    for _ in range(4):
        done, trained = train(config, tmp_path / "parts")
        steps.append((done, saved(tmp_path / "parts", "step")))
        if done:
            break
    assert steps == [(False, 3), (True, 6)]
    assert torch.equal(trained, expected)


def test_compiling_is_asked_for_and_used(tmp_path, monkeypatch):
    asked = []

    def stand_in(network, **_):
        asked.append(network)
        return network

    monkeypatch.setattr(torch, "compile", stand_in)
    expected = train(CONFIG, tmp_path / "a")[1]
    assert not asked
    assert torch.equal(train(replace(CONFIG, compile=True), tmp_path / "b")[1], expected)
    assert len(asked) == 1
