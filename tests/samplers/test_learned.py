"""Trained numbers of a solver: where they begin, their gradients, and what is kept of them."""

from itertools import pairwise

import pytest
import torch

from mmd_ddm.models.chain_table import table_in
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.samplers.learned import Learned, Trainable
from mmd_ddm.samplers.registry import make_sampler

TIMES = (990, 700.5, 402, 211)
SOLVERS = ("ddim", "unipc", "dpm-solver++-3m", "ipndm", "deis")


def trainable(denoiser, name="unipc", at=TIMES, **numbers):
    return Trainable(
        make_sampler(name, denoiser, at), lambda t: make_sampler(name, denoiser, t), **numbers
    )


def noise(denoiser):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, *denoiser.shape, generator=draw, dtype=torch.float64)


def move(sampler):
    """Other numbers; the times in a moderate way."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in sampler.parameters(recurse=False):
            p.add_(torch.randn(p.shape, generator=draw, dtype=p.dtype), alpha=0.1)


@pytest.mark.parametrize("times", [TIMES, (930,)])
@pytest.mark.parametrize("name", SOLVERS)
def test_it_begins_as_the_solver(name, times, denoiser64):
    x_T = noise(denoiser64)
    with torch.no_grad():
        expected = make_sampler(name, denoiser64, times)(x_T)
        found = trainable(denoiser64, name, times)(x_T)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("name", ["ddim", "unipc"])
@pytest.mark.parametrize("kind", ["shares", "offsets"])
def test_its_gradients_are_those_of_finite_differences(kind, name, denoiser64):
    sampler, x_T = trainable(denoiser64, name, coefficients=True), noise(denoiser64)
    move(sampler)
    weight = getattr(sampler, kind)
    draw = torch.Generator().manual_seed(2)
    way = torch.randn(weight.shape, generator=draw, dtype=weight.dtype)

    def loss():
        return sampler(x_T).square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        weight.add_(way, alpha=1e-4)
        above = loss()
        weight.sub_(way, alpha=2e-4)
        slope = (above - loss()) / 2e-4
    assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-2)


def test_times_stay_in_order_and_begin_where_they_began(denoiser64):
    sampler = trainable(denoiser64)
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            sampler.shares.copy_(3 * torch.randn(4, generator=draw, dtype=torch.float64))
        times = sampler.table().times
        assert times[0] == 990
        assert all(t > s for t, s in pairwise(times))
        assert times[-1] >= 0


@pytest.mark.parametrize(
    ("numbers", "trained"),
    [
        ({}, {"shares"}),
        ({"times": False, "coefficients": True}, {"offsets"}),
        ({"coefficients": True}, {"shares", "offsets"}),
    ],
)
def test_only_what_was_asked_for_takes_a_gradient(numbers, trained, denoiser64):
    denoiser64.network.requires_grad_(False)
    sampler = trainable(denoiser64, **numbers)
    assert {name for name, p in sampler.named_parameters() if p.requires_grad} == trained


@pytest.mark.parametrize("name", SOLVERS)
def test_marginals_are_kept_whatever_is_added(name, denoiser64):
    """Where x_0 is predicted rightly, every state is alpha x_0 + sigma eps of the same eps."""
    sampler = trainable(denoiser64, name, coefficients=True, marginals=True)
    before = sampler.table().weights
    for moved in (False, True):
        if moved:
            move(sampler)
        table = sampler.table()
        abar = torch.tensor([*table.alpha_bars, 1.0], dtype=torch.float64)
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        noise_share, image_shares = table.weights[:, 0], table.weights[:, 1:].sum(1)
        assert torch.allclose(noise_share * sigma[0], sigma[1:], atol=1e-12)
        assert torch.allclose(noise_share * alpha[0] + image_shares, alpha[1:], atol=1e-12)
    assert (table.weights - before).abs().max() > 0.01
    assert torch.equal(table.weights, table.weights.tril(1))


def test_free_coefficients_leave_the_marginals(denoiser64):
    sampler = trainable(denoiser64, coefficients=True)
    before = sampler.table().weights.sum(1)
    move(sampler)
    assert (sampler.table().weights.sum(1) - before).abs().min() > 1e-3


def test_what_was_learned_is_walked_as_it_was_trained(denoiser64):
    sampler = trainable(denoiser64, coefficients=True)
    move(sampler)
    table, x_T = sampler.table(), noise(denoiser64)
    denoiser64.beside["table"] = table
    learned = Learned(denoiser64, table.times)
    with torch.no_grad():
        expected = sampler(x_T)
        assert (learned(x_T) - expected).abs().max() <= 1e-12 * expected.abs().max()
    before = sampler.fingerprint
    move(sampler)
    assert sampler.fingerprint != before
    with pytest.raises(ValueError, match=r"learned for times .*got \[900, 100\]"):
        Learned(denoiser64, (900, 100))
    with pytest.raises(ValueError, match=r"without clipping; got .* clipped"):
        Learned(denoiser64, table.times, clip=True)


@pytest.mark.parametrize(
    ("name", "times", "options"),
    [
        ("heun", TIMES, {}),  # more calls than steps
        ("ddpm-small", TIMES, {}),
        ("ddim", TIMES, {"eta": 0.5}),
        ("unipc", TIMES, {"clip": True}),
        ("ddim", (990, 500, 0), {}),
    ],
)
def test_chains_without_such_numbers_are_refused(name, times, options, denoiser64):
    start = make_sampler(name, denoiser64, times, **options)
    with pytest.raises(ValueError, match="no numbers to train: take a deterministic sampler"):
        Trainable(start, lambda t: make_sampler(name, denoiser64, t, **options))


CONFIG = {
    "sampler": "learned", "times": [900.0, 100.0], "alpha_bars": [0.1, 0.9],
    "table": [[0.5, 0.1], [0.0, 0.2, 0.8]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": "unipc"}, "no learned sampler in"),
        ({"table_weights": "0"}, "is of other weights"),
        ({"table": None}, "is damaged"),
        ({"table": [[0.5, 0.1]]}, "is damaged"),
        ({"table": [[0.5, 0.1], [0.0, 0.2]]}, "is damaged: it has rows of other lengths"),
        ({"table": [[0.5, 0.1], [0.0, "x", 0.8]]}, "is damaged"),
        ({"times": [900.0]}, "is damaged"),
    ],
)
def test_a_table_that_is_none_is_told(change, words, denoiser64):
    own = {"table_weights": weights_sha256(denoiser64.network)}
    denoiser64.scheduler_config = {**CONFIG, **own}
    assert table_in(denoiser64).weights.tolist() == [[0.5, 0.1, 0.0], [0.0, 0.2, 0.8]]
    denoiser64.beside.clear()
    denoiser64.scheduler_config = {**CONFIG, **own, **change}
    with pytest.raises(ValueError, match=words):
        table_in(denoiser64)
