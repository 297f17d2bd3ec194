"""Distillation of end points, on a Gaussian whose exact denoiser is known."""

import pytest
import torch
from gaussian import GaussianDenoiser, PerTime, noise
from torch.testing import assert_close

from mmd_ddm.config import FinetuneConfig, SelectConfig, TeacherConfig
from mmd_ddm.maths.times import nested_times
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.base import Source
from mmd_ddm.training.losses.endpoint import EndPoint, local_loss
from mmd_ddm.training.losses.registry import make_loss

TIMES = (900, 500, 100)


def test_a_student_that_is_its_teacher_has_no_loss():
    same = make_sampler("unipc", PerTime(TIMES), TIMES)
    config = FinetuneConfig(method="endpoint", batch_size=4)
    loss = EndPoint(config, Source(teacher=same))
    assert float(loss(make_sampler("unipc", PerTime(TIMES), TIMES), 0, 2).detach()) == 0


def test_the_local_loss_is_that_of_plain_loops():
    """Each step from the student's own state, and the exact flow as the limit of its teacher."""
    student, exact = GaussianDenoiser(), GaussianDenoiser()
    student.weight.data += 0.1
    chain, x_T = make_sampler("ddim", student, TIMES), noise(4)
    teacher = make_sampler("ddim", exact, nested_times(TIMES, 80))
    x_t, expected = x_T, torch.zeros(4, dtype=torch.float64)
    for t, s in zip(TIMES, (*TIMES[1:], None), strict=True):
        x_s = chain.step(x_t, t, s, chain.walk(), None)
        expected += (x_s - exact.flow(x_t, t, s)).square().mean((1, 2, 3)).detach()
        x_t = x_s.detach()
    assert_close(local_loss(chain, teacher, x_T).detach(), expected, rtol=0.1, atol=0)


@pytest.mark.parametrize("local", [0, 9])
def test_three_steps_learn_to_end_where_the_teacher_does(local, tmp_path):
    """From the same noise; DDIM in three steps with the exact eps ends elsewhere."""
    student, base = PerTime(TIMES), GaussianDenoiser()
    own = TeacherConfig(local=local)
    config = FinetuneConfig(
        method="endpoint", teacher=own, iterations=80, batch_size=8, lr=0.2, cosine=True,
        ema_decay=0.0, select=SelectConfig(every=0),
    )  # fmt: skip
    teacher = make_sampler("ddim", base, nested_times(TIMES, 9))
    chain = make_sampler("ddim", student, TIMES)
    loss = EndPoint(config, Source(teacher=teacher))
    finetune(config, chain, (), tmp_path / "c", lambda **event: None, loss=loss)
    x_T = noise(50, seed=3)
    with torch.no_grad():
        drawn, wanted = chain(x_T), teacher(x_T)
        before = make_sampler("ddim", base, TIMES)(x_T)
    assert (drawn - wanted).abs().max() < 0.15 * (before - wanted).abs().max()


def test_chains_that_add_noise_are_refused():
    config = FinetuneConfig(method="endpoint")
    chain = make_sampler("ddim", GaussianDenoiser(), TIMES, eta=1.0)
    with pytest.raises(ValueError, match="method endpoint trains chains that add no noise"):
        make_loss(config, Source(), chain)


def test_the_local_form_has_one_chain_of_ddim():
    with pytest.raises(ValueError, match=r"set chain\.sampler = ddim"):
        FinetuneConfig(method="endpoint", teacher=TeacherConfig(local=3), trained="all+times")
