"""One model for several numbers of steps, in the loop: K is drawn, the worst K selects."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from rank_work import Hungry
from small_net import SmallNet
from torch import nn

from mmd_ddm.config import ChainConfig, FinetuneConfig, SelectConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.metrics import kid
from mmd_ddm.features.bank import extract
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.random import SELECT, generator
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.draw import draw
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import drawn_steps, finetune, trained_steps
from mmd_ddm.training.keep_best import Selection, selected_by
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective

TIMES = {1: (999,), 2: (999, 499), 4: (900, 600, 300, 100)}
CONFIG = FinetuneConfig(
    iterations=8, batch_size=4, lr=1e-2, ema_decay=0.5, save_every=3, seed=3,
    chain=ChainConfig(steps=4, backward="last-1"), budgets=(1, 2, 4),
    select=SelectConfig(features="pixels", every=2, samples=18, diverged=0, patience=0),
)  # fmt: skip


def make(sampler="ddim"):
    """Samplers of one fresh network, always the same, and an objective."""
    torch.manual_seed(0)
    denoiser = UNet2D(SmallNet(), NoiseSchedule.linear(), shape=(1, 8, 8))
    real = torch.rand((20, 1, 8, 8), generator=torch.Generator().manual_seed(1)) - 0.8
    bank = nn.functional.adaptive_avg_pool2d(real, 7).flatten(1)
    objective = Objective.over(Pixels(1), bank, Polynomial(), standardise=False)
    return [make_sampler(sampler, denoiser, times) for times in TIMES.values()], objective


def train(config, path, on_event=lambda **event: None, evaluate=None, sampler="ddim"):
    samplers, objective = make(sampler)
    watch = evaluate(samplers) if evaluate else None
    kept = finetune(config, samplers[-1], [objective], path, on_event, watch, samplers)
    return kept, weights(samplers[0].denoiser)


def weights(denoiser):
    return torch.cat([p.detach().flatten() for p in denoiser.parameters()])


def reals(n=20):
    draw = torch.Generator().manual_seed(0)
    return ImageSet(torch.randint(0, 256, (n, 1, 8, 8), generator=draw).byte(), "photos")


def select(samplers, config=CONFIG):
    return Selection(config, samplers[-1], Pixels(1), reals(), samplers)


@pytest.mark.parametrize("budgets", [(3, 5, 8, 12), (1, 2), (7,)])
def test_k_is_drawn_in_proportion_to_k(budgets):
    n = 4000
    found = Counter(drawn_steps(0, budgets, step) for step in range(n))
    for k in budgets:
        p = k / sum(budgets)
        assert abs(found[k] - n * p) <= 4 * (n * p * (1 - p)) ** 0.5
    assert found.total() == n


def test_k_is_named_by_seed_and_step():
    found = [[drawn_steps(seed, (3, 5), step) for step in range(60)] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm-small"])
def test_each_iteration_walks_the_times_of_its_k(sampler, tmp_path):
    """The first losses, by hand: later ones would need Adam."""
    for seed in (0, 2, 18):
        events, config = [], replace(CONFIG, seed=seed, iterations=1)
        train(config, tmp_path / f"{seed}", lambda **e: events.append(e), sampler=sampler)  # noqa: B023
        samplers, objective = make(sampler)
        k = drawn_steps(seed, [1, 2, 4], 0)
        (chain,) = (one for one in samplers if len(one.times) == k)
        draws = 1 + k * (sampler == "ddpm-small")
        z = torch.randn((draws, 4, 1, 8, 8), generator=generator(seed, 0, 0, "finetune"))
        chain.trained_steps = trained_steps(config, k, 0)
        expected = mmd_step(chain, [objective], z[0], z[1:] if draws > 1 else None)
        expected.backward()
        gradients = [p.grad.norm() for p in chain.denoiser.network.parameters()]
        assert events[0]["loss"] == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
        norm = float(torch.stack(gradients).norm())
        assert events[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert {drawn_steps(seed, [1, 2, 4], 0) for seed in (0, 2, 18)} == {1, 2, 4}


def test_one_budget_is_the_one_chain(tmp_path):
    results = []
    for some in ((), (0,)):
        (_, _, sampler), objective = make()
        config = replace(CONFIG, budgets=())
        path = tmp_path / f"{len(some)}"
        only = [sampler for _ in some]
        finetune(config, sampler, [objective], path, lambda **event: None, budgets=only)
        results.append(weights(sampler.denoiser))
    assert torch.equal(*results)


def test_a_resumed_run_draws_the_same_k_and_keeps_the_same(tmp_path):
    """Killed at every place where it may be, it goes on to the same bits."""

    class Killed(Exception):
        pass

    events = []
    whole = train(CONFIG, tmp_path / "whole", lambda **e: events.append(e), select)
    for at in (1, 5, 7):
        told = []

        def on_event(at=at, told=told, **event):
            told.append(event)
            if event["event"] == "train" and event["step"] == at:
                raise Killed

        path = tmp_path / f"killed-{at}"
        with pytest.raises(Killed):
            train(CONFIG, path, on_event, select)
        told.clear()
        kept, trained = train(CONFIG, path, lambda told=told, **e: told.append(e), select)
        assert kept == whole[0]
        assert torch.equal(trained, whole[1])
        for event in told:
            (then,) = (
                e for e in events if (e["event"], e["step"]) == (event["event"], event["step"])
            )
            assert {**then, "seconds": 0} == {**event, "seconds": 0}


def test_memory_that_runs_out_shrinks_every_chain(tmp_path):
    samplers, objective = make()
    hungry, events = replace(objective, phi=Hungry(there=3)), []
    finetune(
        CONFIG, samplers[-1], [hungry], tmp_path / "c", lambda **e: events.append(e),
        budgets=samplers,
    )  # fmt: skip
    (fault,) = [event for event in events if event["event"] == "fault"]
    assert "is repeated with micro_batch 2" in fault["message"]
    assert len({(one.recompute, one.keep) for one in samplers}) == 1
    assert samplers[0].recompute


# Which checkpoint is kept


def test_selection_is_the_worst_kid_relative_to_the_bases():
    """By hand: 6 images of each budget, from the noise of selection."""
    samplers, _ = make()
    found = select(samplers)

    def by_hand():
        kids = {}
        for one in samplers:
            pixels, _ = draw(one, 6, seed=CONFIG.seed, purpose=SELECT)
            kids[len(one.times)] = kid(
                extract(pixels, Pixels(1)), extract(reals().pixels, Pixels(1))
            )
        return kids

    base = by_hand()
    assert found().value == pytest.approx(1)
    assert found.kids == pytest.approx({k: value for k, (value, _) in base.items()})
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        with torch.no_grad():
            for p in samplers[0].denoiser.parameters():
                p.add_(0.02 * torch.randn_like(p))
        ratios = {k: value / base[k][0] for k, (value, _) in by_hand().items()}
        worst = max(ratios, key=ratios.get)
        seen.add(worst)
        now = found()
        assert now.value == pytest.approx(ratios[worst])
        assert now.se == pytest.approx(by_hand()[worst][1] / base[worst][0])
    assert len(seen) > 1


def test_a_base_without_a_gap_divides_by_its_error():
    """KID of the base's own images is below 0, and no ratio to that means anything."""
    samplers, _ = make()
    images = [draw(one, 6, seed=CONFIG.seed, purpose=SELECT)[0] for one in samplers]
    own = ImageSet(images[0], "its own")
    found = Selection(CONFIG, samplers[-1], Pixels(1), own, samplers)()
    first = [kid(extract(some, Pixels(1)), extract(own.pixels, Pixels(1))) for some in images]
    assert first[0][0] < 0
    assert found.value == pytest.approx(max(value / max(value, 2 * se) for value, se in first))


def test_what_selects_is_told_with_its_budgets():
    assert selected_by(CONFIG) == "pixels, the worst of 1, 2, 4 steps relative to the base"
    assert selected_by(replace(CONFIG, budgets=())) == "pixels"
