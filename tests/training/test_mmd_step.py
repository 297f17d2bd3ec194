"""One iteration's loss and gradient: the paper's algorithm in plain loops, in micro-batches."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.features.multilevel import MultiLevel
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Gaussian, Linear, Polynomial
from mmd_ddm.maths.pixels import clamp_hard, clamp_straight_through
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import Objective

TIMES = (700, 300, 0)
N, M = 5, 11


def noise(sampler, n=N, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((sampler.draws, n, 1, 8, 8), generator=generator, dtype=dtype)
    return z[0], z[1:] if sampler.stochastic else None


def objectives(dtype=torch.float64, m=M):
    generator = torch.Generator().manual_seed(7)
    real = torch.rand((m, 1, 8, 8), generator=generator, dtype=dtype) * 2 - 1
    made = []
    torch.manual_seed(0)
    for phi, kernel, weight in (
        (MultiLevel(1, (4, 8)), Polynomial(), 1.0),
        (Pixels(1), Gaussian(), 0.3),
    ):
        phi.to(dtype).freeze()
        made.append(Objective.over(phi, phi(real), kernel, weight, standardise=False))
    return made


def loss_and_gradient(sampler, spaces, x_T, z, **options):
    network = sampler.denoiser.network
    network.zero_grad()
    loss = mmd_step(sampler, spaces, x_T, z, **options)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in network.parameters()])


def error(a, b):
    return float((a - b).norm() / b.norm())


# The chain is asked in parts, the loss is not.


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["ddim", "ddpm-small", "dpm-solver++-2m"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_micro_batches_give_the_whole_batchs_gradient(
    name, recompute, dtype, denoiser, denoiser64
):
    own = denoiser64 if dtype == torch.float64 else denoiser
    sampler = make_sampler(name, own, TIMES)
    spaces, (x_T, z) = objectives(dtype), noise(sampler, dtype=dtype)
    loss, whole = loss_and_gradient(sampler, spaces, x_T, z)
    sampler.recompute = recompute
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for micro_batch in (2,) if recompute else (1, 2, 100):
        part_loss, parts = loss_and_gradient(sampler, spaces, x_T, z, micro_batch=micro_batch)
        assert error(parts, whole) <= tolerance
        assert abs(part_loss - loss) <= tolerance  # a difference of terms that are about 1


def test_an_average_over_small_batches_would_be_another_gradient(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    spaces, (x_T, _) = objectives(), noise(sampler, n=4)
    whole = loss_and_gradient(sampler, spaces, x_T, None)[1]
    halves = [loss_and_gradient(sampler, spaces, part, None)[1] for part in x_T.split(2)]
    assert error(sum(halves) / 2, whole) > 1e-3


# The paper's algorithm, written down once more.


def naive_loss(network, phi, bank, x_T, kernel):
    """DDIM (sigma_t = 0), image by image, then Eq. 7 with its constant, pair by pair."""
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    features = []
    for x_t in x_T.split(1):
        for t, s in pairwise((*TIMES, None)):
            abar_t = alpha_bar[t]
            abar_s = torch.ones(()) if s is None else alpha_bar[s]
            eps = network(x_t, t).sample
            x_0 = (x_t - (1 - abar_t).sqrt() * eps) / abar_t.sqrt()
            x_t = abar_s.sqrt() * x_0 + (1 - abar_s).sqrt() * eps
        inside = x_t.clamp(-1, 1)
        features.append(phi(x_t + (inside - x_t).detach())[0])
    n, m = len(features), len(bank)
    within = sum(
        kernel(features[i], features[j]) for i in range(n) for j in range(n) if i != j
    ) / (n * (n - 1))
    cross = sum(kernel(x, y) for x in features for y in bank) / (n * m)
    constant = sum(kernel(bank[i], bank[j]) for i in range(m) for j in range(m) if i != j) / (
        m * (m - 1)
    )
    return within - 2 * cross + constant


KERNELS = [
    (Polynomial(), lambda x, y: (x @ y / len(x) + 1) ** 3),
    (Linear(), lambda x, y: x @ y),
    (Gaussian(), lambda x, y: torch.exp(-((x - y) ** 2).sum() / len(x))),
]


@pytest.mark.parametrize(("kernel", "k"), KERNELS, ids=lambda value: getattr(value, "degree", ""))
def test_loss_and_gradient_are_those_of_plain_loops(kernel, k, denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    space, (x_T, _) = objectives()[0], noise(sampler, n=3)
    space = Objective.over(space.phi, space.bank[:4], kernel, standardise=False)
    loss, gradient = loss_and_gradient(sampler, [space], x_T, None)
    network = denoiser64.network
    network.zero_grad()
    expected = naive_loss(network, space.phi, space.bank, x_T, k)
    expected.backward()
    expected_gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert error(gradient, expected_gradient) < 1e-9


def test_spaces_add_up_by_their_weights(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    spaces, (x_T, _) = objectives(), noise(sampler)
    loss, gradient = loss_and_gradient(sampler, spaces, x_T, None)
    parts = [loss_and_gradient(sampler, [space], x_T, None) for space in spaces]
    assert float(loss) == pytest.approx(float(parts[0][0] + parts[1][0]), rel=1e-12)
    assert error(parts[0][1] + parts[1][1], gradient) < 1e-12
    double = replace(spaces[1], weight=0.6)
    assert error(loss_and_gradient(sampler, [double], x_T, None)[1], 2 * parts[1][1]) < 1e-12


def test_all_rows_of_the_bank_are_the_bank(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    spaces, (x_T, _) = objectives(), noise(sampler)
    whole = loss_and_gradient(sampler, spaces, x_T, None)
    rows = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    minibatch = loss_and_gradient(sampler, spaces, x_T, None, rows=rows)
    assert error(minibatch[0], whole[0]) < 1e-12
    assert error(minibatch[1], whole[1]) < 1e-12
    few = loss_and_gradient(sampler, spaces, x_T, None, rows=rows[:3])
    assert error(few[1], whole[1]) > 1e-3


def test_minibatches_give_the_banks_gradient_on_average(denoiser64):
    """The cross term is a mean over the reals, and nothing else of the loss knows them."""
    sampler = make_sampler("ddim", denoiser64, TIMES)
    spaces, (x_T, _) = objectives(m=12), noise(sampler)
    whole = loss_and_gradient(sampler, spaces, x_T, None)[1]
    parts = [
        loss_and_gradient(sampler, spaces, x_T, None, rows=rows)[1]
        for rows in torch.arange(12).split(4)
    ]
    assert error(sum(parts) / 3, whole) < 1e-12


def test_the_loss_is_seen_without_gradients(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES, recompute=True)
    spaces, (x_T, _) = objectives(), noise(sampler)
    with torch.no_grad():
        loss = mmd_step(sampler, spaces, x_T, None, micro_batch=2)
    assert not loss.requires_grad
    assert error(loss, loss_and_gradient(sampler, spaces, x_T, None)[0]) < 1e-12


@pytest.mark.parametrize("clamp", [clamp_hard, clamp_straight_through])
def test_saturated_pixels_have_a_gradient_or_none(clamp, denoiser64):
    """By finite differences: the hard clamp's is the derivative of the loss itself."""
    sampler = make_sampler("ddim", denoiser64, TIMES)
    spaces, (x_T, _) = objectives(), noise(sampler)
    weight = denoiser64.network.conv_out.bias
    loss_and_gradient(sampler, spaces, x_T, None, clamp=clamp)
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            weight += step
            values.append(float(mmd_step(sampler, spaces, x_T, clamp=clamp)))
    slope = (values[0] - values[1]) / 2e-6
    assert bool((sampler(x_T).abs() > 1).any())
    assert (float(weight.grad) == pytest.approx(slope, rel=1e-5)) == (clamp is clamp_hard)


def test_one_image_is_refused(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    with pytest.raises(ValueError, match="at least 2"):
        mmd_step(sampler, objectives(), noise(sampler, n=1)[0])


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_each_call_that_is_kept_saves_a_recomputation(keep, denoiser64):
    sampler = make_sampler("ipndm", denoiser64, TIMES, recompute=True)
    spaces, (x_T, _) = objectives(), noise(sampler)
    whole = loss_and_gradient(sampler, spaces, x_T, None)[1]
    calls, sampler.keep = [], keep
    with denoiser64.network.register_forward_pre_hook(lambda *_: calls.append(1)):
        gradient = loss_and_gradient(sampler, spaces, x_T, None)[1]
    assert len(calls) == 2 * len(TIMES) - keep
    assert torch.equal(gradient, whole)


def test_recomputation_keeps_less(denoiser64):
    """Counted in what autograd saves for the backward pass."""
    sampler = make_sampler("ddim", denoiser64, TIMES)
    spaces, (x_T, _) = objectives(), noise(sampler)

    def kept(recompute):
        sampler.recompute, sizes = recompute, []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            mmd_step(sampler, spaces, x_T)
        return sum(sizes)

    assert kept(True) < kept(False) / 5


@pytest.mark.parametrize("recompute", [False, True])
def test_extractors_are_recomputed_with_the_chain(recompute, denoiser64):
    """Theirs are the most activations of all, where they are networks of their own."""
    sampler = make_sampler("ddim", denoiser64, TIMES, recompute=recompute)
    spaces, (x_T, _) = objectives()[:1], noise(sampler)
    calls = []
    with spaces[0].phi.register_forward_pre_hook(lambda *_: calls.append(1)):
        loss_and_gradient(sampler, spaces, x_T, None, micro_batch=3)
    assert len(calls) == 2 * (1 + recompute)


# A standardised space.


def features(scale=1.0, shift=0.0):
    draw = torch.Generator().manual_seed(3)
    return shift + scale * torch.randn((M, 4), generator=draw, dtype=torch.float64)


class Scaled(FeatureExtractor):
    """The first four pixels, in other units."""

    name, dim = "scaled", 4

    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, images):
        return self.shift + self.scale * images.flatten(1)[:, :4]


def test_a_standardised_bank_has_mean_zero_and_deviation_one():
    objective = Objective.over(Scaled(1, 0), features(5, 3), Polynomial())
    assert objective.bank.mean(0).abs().max() < 1e-12
    assert (objective.bank.std(0) - 1).abs().max() < 1e-12


def test_units_of_a_space_do_not_matter_once_it_is_standardised(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    x_T, _ = noise(sampler)
    losses = {
        (scale, standardise): float(
            loss_and_gradient(
                sampler,
                [
                    Objective.over(
                        Scaled(scale, shift),
                        features(scale, shift),
                        Polynomial(),
                        standardise=standardise,
                    )
                ],
                x_T,
                None,
            )[0]
        )
        for scale, shift in ((1.0, 0.0), (7.0, -2.0))
        for standardise in (True, False)
    }
    assert losses[1.0, True] == pytest.approx(losses[7.0, True], rel=1e-9)
    assert losses[1.0, False] != pytest.approx(losses[7.0, False], rel=0.1)


def test_a_dimension_in_which_the_data_do_not_vary_stays_finite():
    real = features()
    real[:, 2] = 0.5
    objective = Objective.over(Scaled(1, 0), real, Polynomial())
    assert objective.std[2] == pytest.approx(0.01 * float(real.std(0).mean()))
    assert objective.features(torch.ones((2, 1, 2, 2)).double()).isfinite().all()


def test_landmarks_stand_for_a_bank(denoiser64):
    sampler = make_sampler("ddim", denoiser64, TIMES)
    draw = torch.Generator().manual_seed(3)
    real = torch.rand((400, 1, 8, 8), generator=draw, dtype=torch.float64) * 2 - 1
    phi = Scaled(1.0, 0.0)
    made = [
        Objective.over(phi, phi(real), Polynomial(), landmarks=landmarks)
        for landmarks in (0, 100, 400)
    ]
    assert [len(objective.bank) for objective in made] == [400, 100, 400]
    assert made[2].bank_weights is None
    x_T = noise(sampler)[0]
    whole, few, _ = (loss_and_gradient(sampler, [o], x_T, None) for o in made)
    assert error(few[1], whole[1]) < 1e-3
    assert float(few[0]) == pytest.approx(float(whole[0]), abs=0.05)


class Waits(TorchDispatchMode):
    """Counts what reads a number from the device: the schedule's float64 stays on the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        aten = torch.ops.aten
        reads = (aten._local_scalar_dense, aten.nonzero, aten.equal)
        if function.overloadpacket in reads and args[0].dtype == torch.float32:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["ddim", "ddpm-small", "dpm-solver++-2m"])
def test_nothing_waits_for_the_device(name, denoiser):
    sampler = make_sampler(name, denoiser, TIMES, recompute=True)
    spaces, (x_T, z) = objectives(torch.float32), noise(sampler, dtype=torch.float32)
    with Waits() as waits:
        mmd_step(sampler, spaces, x_T, z, micro_batch=2).backward()
        assert waits.found == []
        float(x_T.sum())
    assert len(waits.found) == 1
