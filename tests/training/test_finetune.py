"""The training loop: what it optimises, keeps, refuses, and repeats when it is resumed."""

import math
import re
from dataclasses import replace

import pytest
import torch
from estimates import estimate
from rank_work import Hungry
from small_net import SmallNet
from torch import nn

from mmd_ddm.config import FinetuneConfig, ObjectiveConfig, SelectConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Gaussian, Polynomial, make_kernel
from mmd_ddm.maths.random import generator
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective
from mmd_ddm.training.state import TrainingState

CONFIG = FinetuneConfig(
    iterations=6, batch_size=4, lr=1e-2, ema_decay=0.5, save_every=3, grad_clip=1.0,
    select=SelectConfig(every=2, diverged=0),
)  # fmt: skip


def make(sampler="ddim", dropout=0.0, times=(600, 200)):
    """A sampler of a fresh network, always the same, and an objective."""
    torch.manual_seed(0)
    denoiser = UNet2D(SmallNet(dropout), NoiseSchedule.linear(), shape=(1, 8, 8))
    real = torch.rand((20, 1, 8, 8), generator=torch.Generator().manual_seed(1)) - 0.8
    bank = nn.functional.adaptive_avg_pool2d(real, 7).flatten(1)
    objective = Objective.over(Pixels(1), bank, Polynomial(), standardise=False)
    return make_sampler(sampler, denoiser, times), [objective]


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def ignore(**event):
    pass


def train(config, path, on_event=ignore, evaluate=None, **options):
    sampler, objectives = make(**options)
    kept = finetune(config, sampler, objectives, path, on_event, evaluate)
    return kept, weights(sampler.denoiser.network)


def saved(path, key="network"):
    return torch.load(path, weights_only=True)[key]


def test_the_loss_goes_down(tmp_path):
    events, config = [], replace(CONFIG, iterations=60, batch_size=16)
    train(config, tmp_path / "c", lambda **event: events.append(event))
    losses = [event["loss"] for event in events]
    assert sum(losses[-5:]) < 0.1 * sum(losses[:5])


@pytest.mark.parametrize("sampler", ["ddim", "ddpm-small"])
def test_the_loop_is_adam_on_the_named_draws(sampler, tmp_path):
    """Three iterations by hand: Adam (0.9, 0.999, 1e-8), clipped, one draw an iteration."""
    config = replace(CONFIG, iterations=3, ema_decay=0.0, grad_clip=0.01, seed=5)
    events = []
    _, trained = train(config, tmp_path / "c", lambda **e: events.append(e), sampler=sampler)
    chain, objectives = make(sampler)
    parameters = list(chain.denoiser.network.parameters())
    mean = [torch.zeros_like(p) for p in parameters]
    square = [torch.zeros_like(p) for p in parameters]
    for step in range(3):
        draws = 3 if sampler == "ddpm-small" else 1
        z = torch.randn((draws, 4, 1, 8, 8), generator=generator(5, 0, step, "finetune"))
        loss = mmd_step(chain, objectives, z[0], z[1:] if draws > 1 else None)
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        assert events[step]["loss"] == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
        assert events[step]["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
        assert norm > 0.01
        with torch.no_grad():
            for i, g in enumerate(gradients):
                g = g * 0.01 / norm
                mean[i] = 0.9 * mean[i] + 0.1 * g
                square[i] = 0.999 * square[i] + 0.001 * g * g
                m, v = mean[i] / (1 - 0.9 ** (step + 1)), square[i] / (1 - 0.999 ** (step + 1))
                parameters[i] -= config.lr * m / (v.sqrt() + 1e-8)
    assert torch.allclose(trained, weights(chain.denoiser.network), atol=1e-5)


@pytest.mark.parametrize("clip", [0.0, 1e-12])
def test_the_gradient_is_clipped_unless_the_limit_is_zero(clip, tmp_path):
    """A gradient far below Adam's 1e-8 moves nothing."""
    base = weights(make()[0].denoiser.network)
    _, trained = train(replace(CONFIG, grad_clip=clip), tmp_path / "c")
    assert ((trained - base).abs().max() > 1e-3) == (clip == 0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm-small"])
def test_a_kernel_that_sees_nothing_is_told_with_one_that_does(sampler, tmp_path):
    """Features lie some 100 sigma away; the median is that of plain loops."""
    chain, (objective,) = make(sampler)
    blind, events = replace(objective, kernel=Gaussian(sigma=0.02)), []
    base = weights(chain.denoiser.network)
    z = torch.randn((chain.draws, 4, 1, 8, 8), generator=generator(0, 0, 0, "finetune"))
    with torch.no_grad():
        phi_x = objective.features(chain(z[0], z[1:]).clamp(-1, 1))
    distances2 = sorted(float((x - y).square().sum()) for x in phi_x for y in objective.bank)
    finetune(CONFIG, chain, [blind], tmp_path / "a", lambda **event: events.append(event))
    assert torch.equal(weights(chain.denoiser.network), base)
    (fault,) = [event for event in events if event["event"] == "fault"]
    assert fault["step"] == 1
    words = r'its gradient is exactly 0: .* objective\.kernel = "(gaussian:([\d.]+))" .* in pixels'
    found = re.search(words, fault["message"])
    assert float(found[2]) == pytest.approx(math.sqrt(distances2[39] / 2), rel=1e-3)
    wide = replace(objective, kernel=make_kernel(found[1]))
    finetune(CONFIG, chain, [wide], tmp_path / "b", lambda **event: events.append(event))
    assert events[-1]["event"] == "train"
    assert (weights(chain.denoiser.network) - base).norm() > 1e-2 * base.norm()


@pytest.mark.parametrize("lr", [0.0, 1e-2])
def test_a_gradient_that_is_zero_is_told_of_other_kernels_too(lr, tmp_path):
    """Every pixel saturated, under the hard clamp; not if nothing was to move anyway."""
    sampler, objectives = make()
    with torch.no_grad():
        sampler.denoiser.network.out.bias.fill_(1e4)
    config, events = replace(CONFIG, objective=ObjectiveConfig(clamp="hard"), lr=lr), []
    finetune(config, sampler, objectives, tmp_path / "c", lambda **event: events.append(event))
    told = [event["message"] for event in events if event["event"] == "fault"]
    assert told == ["iteration 1 moved nothing, its gradient is exactly 0"][: bool(lr)]
    moving = make()[0]
    moving.denoiser.network.load_state_dict(sampler.denoiser.network.state_dict())
    config = replace(config, objective=ObjectiveConfig(), lr=1e-2)
    finetune(config, moving, objectives, tmp_path / "d", ignore)
    assert not torch.equal(weights(moving.denoiser.network), weights(sampler.denoiser.network))


# Memory


@pytest.mark.parametrize("where", ["there", "back"])
def test_an_iteration_that_runs_out_of_memory_is_repeated_in_halves(where, tmp_path):
    expected, events = [], []
    _, whole = train(CONFIG, tmp_path / "a", lambda **event: expected.append(event))
    sampler, (objective,) = make()
    hungry = replace(objective, phi=Hungry(**{where: 3}))
    finetune(CONFIG, sampler, [hungry], tmp_path / "b", lambda **event: events.append(event))
    (fault,) = [event for event in events if event["event"] == "fault"]
    assert fault["step"] == 3
    assert fault["message"] == (
        "iteration 3 ran out of memory and is repeated with micro_batch 2, 1 network calls kept"
    )
    assert sampler.recompute
    losses = [[e["loss"] for e in told if e["event"] == "train"] for told in (expected, events)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-6)
    trained = weights(sampler.denoiser.network)
    assert (trained - whole).norm() <= 1e-5 * whole.norm()


class Failing(Pixels):
    """Raises the same error for every image."""

    def __init__(self, error):
        super().__init__(1)
        self.error = error

    def forward(self, images):
        raise self.error


def fail(error, path):
    sampler, (objective,) = make()
    finetune(CONFIG, sampler, [replace(objective, phi=Failing(error))], path, ignore)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_for_one_image_is_said(error, tmp_path):
    with pytest.raises(ValueError, match="one image at a time needs more memory than cpu has"):
        fail(error, tmp_path / "c")
    assert saved(tmp_path / "c", "step") == 0


def test_other_errors_are_not_taken_for_it(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        fail(RuntimeError("shapes do not match"), tmp_path / "c")


# Resuming


class Killed(Exception):
    pass


def kill_at(step):
    def on_event(**event):
        if event["step"] == step and event["event"] == "train":
            raise Killed

    return on_event


def scripted(values):
    """An evaluation that answers with these KIDs in turn."""
    remaining = list(values)
    return lambda: estimate(float(remaining.pop(0)), of=f"noise {len(remaining)}")


@pytest.mark.parametrize("reference", ["bank", "minibatch"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm-small", "ipndm"])
def test_a_resumed_run_is_the_uninterrupted_one(sampler, reference, tmp_path):
    config = replace(CONFIG, objective=ObjectiveConfig(reference=reference))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    events, resumed = [], []
    _, expected = train(config, whole, lambda **e: events.append(e), sampler=sampler)
    with pytest.raises(Killed):
        train(config, parts, kill_at(5), sampler=sampler)
    assert saved(parts, "step") == 3
    _, trained = train(config, parts, lambda **e: resumed.append(e), sampler=sampler)
    assert torch.equal(trained, expected)
    assert [e["step"] for e in resumed] == [4, 5, 6]
    assert [e["loss"] for e in resumed] == [e["loss"] for e in events[3:]]
    for key, value in saved(whole).items():
        assert torch.equal(saved(parts)[key], value)


def test_a_resumed_run_remembers_its_best(tmp_path):
    kids = {0: 5.0, 2: 1.0, 4: 3.0, 6: 2.0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    kept, expected = train(CONFIG, whole, evaluate=scripted(kids.values()))
    assert kept == 2
    with pytest.raises(Killed):
        train(CONFIG, parts, kill_at(5), evaluate=scripted([5.0, 1.0, 3.0]))
    # It goes on from the save at 3: the evaluation at 4 is repeated, those at 0 and 2 are not.
    kept, trained = train(CONFIG, parts, evaluate=scripted([3.0, 2.0]))
    assert kept == 2
    assert torch.equal(trained, expected)


def test_a_finished_run_is_not_run_again(tmp_path):
    kept, expected = train(CONFIG, tmp_path / "c", evaluate=scripted([5.0, 4.0, 3.0, 3.5]))
    assert train(CONFIG, tmp_path / "c", kill_at(1), evaluate=scripted([]))[0] == kept == 4
    assert torch.equal(train(CONFIG, tmp_path / "c")[1], expected)


def test_minibatches_are_other_rows_every_time(tmp_path):
    config = replace(CONFIG, objective=ObjectiveConfig(reference="minibatch"))
    assert not torch.equal(train(config, tmp_path / "a")[1], train(CONFIG, tmp_path / "b")[1])


# What is kept


@pytest.mark.parametrize(
    ("kids", "best"),
    [([9, 5, 7, 6], 2), ([1, 5, 7, 6], 0), ([4, 3, 2, 1], 6), ([4, math.nan, 3, 3.1], 6)],
)
def test_the_best_averaged_weights_are_kept(kids, best, tmp_path):
    sampler, objectives = make()
    network, seen, events, answers = sampler.denoiser.network, {}, [], iter(kids)

    def evaluate():
        seen[2 * len(seen)] = weights(network)
        return estimate(float(next(answers)), of=f"noise {len(seen)}")

    kept = finetune(
        CONFIG, sampler, objectives, tmp_path / "c", lambda **e: events.append(e), evaluate
    )
    assert kept == best
    assert torch.equal(weights(network), seen[best])
    judged = [event for event in events if event["event"] == "eval"]
    assert [event["step"] for event in judged] == [0, 2, 4, 6]
    assert [e["step"] for e in judged if e["best"]][-1] == best
    assert [event["kid"] for event in judged] == pytest.approx(kids, nan_ok=True)
    assert judged[0]["kid_se"] == pytest.approx(0.1)
    assert judged[0]["kid_ci95"] == pytest.approx([kids[0] - 0.196, kids[0] + 0.196])
    # Looking on changes nothing: the training is that of a run which nobody watched.
    train(CONFIG, tmp_path / "unseen")
    assert torch.equal(saved(tmp_path / "c")["conv.weight"],
                       saved(tmp_path / "unseen")["conv.weight"])  # fmt: skip


def test_of_equals_the_later_is_kept(tmp_path):
    """The same images again differ by nothing, without an error."""
    state = TrainingState(CONFIG, make()[0].denoiser.network, tmp_path / "c")
    for step in (2, 4):
        state.step = step
        assert state.consider(estimate(3.0))
    assert (state.best["step"], state.best["lowest_at"]) == (4, 2)


def test_the_last_iteration_is_always_judged(tmp_path):
    events, config = [], replace(CONFIG, iterations=5, select=SelectConfig(every=4))
    train(config, tmp_path / "a", lambda **e: events.append(e), scripted([3.0, 2.0, 1.0]))
    assert [e["step"] for e in events if e["event"] == "eval"] == [0, 4, 5]
    config = replace(config, select=SelectConfig(every=0), save_every=4)
    assert train(config, tmp_path / "b", evaluate=scripted([3.0, 1.0]))[0] == 5
    assert saved(tmp_path / "b", "step") == 5


def test_without_evaluation_the_last_average_is_kept(tmp_path):
    kept, trained = train(CONFIG, tmp_path / "c")
    assert kept == 6
    average = torch.cat([p.flatten() for p in saved(tmp_path / "c", "ema")["shadow_params"]])
    last = torch.cat([p.flatten() for p in saved(tmp_path / "c").values()])
    assert torch.equal(trained, average)
    assert not torch.allclose(trained, last, atol=1e-4)


def test_no_average_at_decay_zero(tmp_path):
    _, trained = train(replace(CONFIG, ema_decay=0.0), tmp_path / "c")
    last = torch.cat([p.flatten() for p in saved(tmp_path / "c").values()])
    assert torch.allclose(trained, last, atol=1e-7)


def test_dropout_is_off(tmp_path):
    sampler, objectives = make(dropout=0.9)
    sampler.denoiser.network.train()
    finetune(CONFIG, sampler, objectives, tmp_path / "a", ignore)
    assert torch.equal(weights(sampler.denoiser.network), train(CONFIG, tmp_path / "b")[1])


# Divergence


@pytest.mark.parametrize(
    ("kids", "stops_at"),
    [
        ([2.0, 4.6, 4.4, 1.0], 2),
        ([2.0, 4.4, 4.6, 1.0], 4),
        ([-1.0, 0.4, 0.6, 0.0], 4),  # a base without error: what is left are five errors
        ([2.0, math.nan, 1.0, 1.0], 2),
    ],
)
def test_a_run_that_goes_astray_is_stopped_with_its_best(kids, stops_at, tmp_path):
    """Beyond twice the base's KID and five errors of 0.1; the same call trains no further."""
    config = replace(CONFIG, select=SelectConfig(every=2, diverged=2.0))
    events = []
    kept, trained = train(config, tmp_path / "c", lambda **e: events.append(e), scripted(kids))
    assert kept == 0
    assert torch.equal(trained, weights(make()[0].denoiser.network))
    (fault,) = (event for event in events if event["event"] == "fault")
    assert fault["step"] == stops_at
    assert f"diverged at iteration {stops_at}" in fault["message"]
    assert "iteration 0 is kept" in fault["message"]
    assert max(e["step"] for e in events) == stops_at
    again, resumed = train(config, tmp_path / "c", kill_at(stops_at + 1), scripted([]))
    assert again == kept
    assert torch.equal(resumed, trained)


# Patience


@pytest.mark.parametrize(
    ("kids", "patience", "stops_at", "best"),
    [
        ([5, 4, 4, 3, 2, 1], 1, 4, 4),  # of equals the later is kept, yet it ends the patience
        ([5, 4, 4.5, 4.2, 3, 1], 2, 6, 2),
        ([5, 6, 7, 8, 9, 9], 3, 6, 0),
        ([5, 4, 4.5, 3, 3.5, 2], 2, None, 10),
        ([5, 6, 7, 8, 9, 9], 5, None, 0),  # the last evaluation ends nothing
        ([5, 6, 7, 8, 9, 9], 0, None, 0),
        ([math.nan] * 6, 2, 4, 4),  # none was ever the lowest: the last average is kept
    ],
)
def test_patience_ends_a_run_with_its_best(kids, patience, stops_at, best, tmp_path):
    config = replace(
        CONFIG, iterations=10, select=SelectConfig(every=2, patience=patience, diverged=0)
    )
    events = []
    kept, trained = train(config, tmp_path / "c", lambda **e: events.append(e), scripted(kids))
    assert kept == best
    stops = [event for event in events if event["event"] == "stop"]
    assert [event["step"] for event in stops] == ([stops_at] if stops_at else [])
    assert max(event["step"] for event in events) == (stops_at or 10)
    if stops_at:
        assert f"the last {patience} evaluations (select.patience)" in stops[0]["message"]
        again, resumed = train(config, tmp_path / "c", kill_at(stops_at + 1), scripted([]))
        assert again == kept
        assert torch.equal(resumed, trained)


def test_a_patience_of_one_evaluation_at_every_iteration_ends_with_the_first(tmp_path):
    config, events = replace(CONFIG, select=SelectConfig(every=1, patience=1, diverged=0)), []
    train(config, tmp_path / "c", lambda **e: events.append(e), scripted([5.0, 6.0]))
    assert (events[-1]["event"], events[-1]["step"]) == ("stop", 1)
