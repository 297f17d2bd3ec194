"""Progressive distillation on a Gaussian whose exact denoiser is known."""

from itertools import pairwise

import pytest
import torch
from gaussian import GaussianDenoiser, PerTime, noise
from torch.testing import assert_close

from mmd_ddm.config import FinetuneConfig, ProgressiveConfig, SelectConfig
from mmd_ddm.maths.pixels import to_uint8
from mmd_ddm.maths.times import nested_times
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.base import Source
from mmd_ddm.training.losses.progressive import Progressive, progressive_loss

TIMES = (900, 500, 100)


def test_times_nest():
    assert nested_times((900, 700, 100)) == (900, 800, 700, 400, 100, 49.5)
    assert nested_times((900, 600), 2, data=0.0) == (900, 800, 700, 600, 400, 200)
    assert nested_times(nested_times(TIMES))[::4] == TIMES


def right_weights(student, teacher, times):
    """Weights of the exact eps with which one step lands where two of the teacher's do."""
    exact, x, schedule, found = GaussianDenoiser(), noise(1), student.schedule, []
    for t, m, s in zip(times[::2], times[1::2], (*times[2::2], None), strict=True):
        two = x
        for u, v in ((t, m), (m, s)):
            two = teacher.step(two, u, v, teacher.walk(), None)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        # x_s = alpha_s (x - sigma_t e) / alpha_t + sigma_s e, for e
        e = (two - alpha_s / alpha_t * x) / (sigma_s - alpha_s / alpha_t * sigma_t)
        found.append((e / exact.eps(x, t)).mean())
    return torch.stack(found).detach()


def test_one_step_that_lands_on_two_has_no_loss():
    """At every time, the step to the data included; and a wrong one has the weighted error."""
    student, times = PerTime(TIMES), nested_times(TIMES)
    teacher = make_sampler("ddim", GaussianDenoiser(), times)
    chain = make_sampler("ddim", student, TIMES)
    student.network.weights.data = right_weights(student, teacher, times)
    steps = torch.tensor([0, 1, 2, 2])
    args = (chain, teacher, times, steps, 0.5 * noise(4), noise(4, seed=1))
    assert progressive_loss(*args).abs().max() < 1e-20
    student.network.weights.data += 0.1
    x_t = torch.stack(
        [a * x + s * z for (a, s), x, z in zip(
            (chain.schedule(TIMES[i]) for i in steps.tolist()), args[4], args[5], strict=True
        )]
    )  # fmt: skip
    off = [
        (s / a) ** 2 * max((a / s) ** 2, 1) * (0.1 * GaussianDenoiser().eps(x[None], t)).square()
        .mean()
        for x, t in zip(x_t, (TIMES[i] for i in steps.tolist()), strict=True)
        for a, s in [chain.schedule(t)]
    ]  # fmt: skip
    assert_close(progressive_loss(*args).detach(), torch.stack(off).detach())


def test_perfect_students_compose_to_the_first_teacher():
    """Three rounds of students that land exactly: 24 steps of DDIM in 3."""
    grids = [TIMES]
    for _ in range(3):
        grids.append(nested_times(grids[-1]))
    teacher = make_sampler("ddim", GaussianDenoiser(), grids[-1])
    first = teacher(noise()).detach()
    for fine, coarse in pairwise(reversed(grids)):
        student = PerTime(coarse)
        student.network.weights.data = right_weights(student, teacher, fine)
        teacher = make_sampler("ddim", student, coarse)
    assert len(teacher.times) == 3
    assert_close(teacher(noise()).detach(), first)


def test_two_rounds_learn_the_chain_of_four_times_the_steps(tmp_path):
    student = PerTime(nested_times(TIMES))  # each weight serves the times of both rounds
    config = FinetuneConfig(
        method="progressive", progressive=ProgressiveConfig(2), iterations=160, batch_size=12,
        lr=0.05, cosine=True, ema_decay=0.0, select=SelectConfig(every=0),
    )  # fmt: skip
    frozen = PerTime(student.times.tolist()).requires_grad_(False)
    chain, teacher = (make_sampler("ddim", d, TIMES) for d in (student, frozen))
    images = to_uint8(0.5 * noise(200).float())
    loss = Progressive(config, Source(images=images, teacher=teacher))
    finetune(config, chain, (), tmp_path / "c", lambda **event: None, loss=loss)
    assert not torch.equal(frozen.network.weights, torch.ones(6))  # the student of round one
    x_T, fine = noise(50, seed=3), nested_times(nested_times(TIMES))
    with torch.no_grad():
        wanted = make_sampler("ddim", GaussianDenoiser(), fine)(x_T)
        before = make_sampler("ddim", GaussianDenoiser(), TIMES)(x_T)
        drawn = chain(x_T)
    assert (drawn - wanted).abs().max() < 0.2 * (before - wanted).abs().max()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"iterations": 7, "progressive": ProgressiveConfig(2)},
            "cannot be parted into progressive",
        ),
        ({"budgets": (5, 10)}, "give one number of steps"),
        ({"trained": "times"}, "trains no numbers of the chain"),
    ],
)
def test_what_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        FinetuneConfig(method="progressive", **settings)
