"""Distribution matching distillation on Gaussians."""

import torch
from gaussian import VARIANCE, GaussianDenoiser, PerTime, noise
from torch.testing import assert_close

from mmd_ddm.config import FinetuneConfig, ScoreConfig, SelectConfig
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.base import Source
from mmd_ddm.training.losses.score import Score, critic_loss, score_loss

T = 500


class Spread(GaussianDenoiser):
    """The exact eps of N(0, variance), which can be trained."""

    def __init__(self, variance=VARIANCE):
        super().__init__()
        self.network = torch.nn.Module()
        self.network.variance = torch.nn.Parameter(torch.tensor(variance, dtype=torch.float64))

    def forward(self, x_t, t, condition=None):
        alpha, sigma = self.coefficients(torch.as_tensor(t, dtype=x_t.dtype).expand(len(x_t)))
        return (sigma * x_t / (alpha**2 * self.network.variance + sigma**2)).to(x_t)


def asked(variance):
    return make_sampler("ddim", Spread(variance), (T,))


def test_the_gradient_is_that_of_kl_but_for_the_weight():
    """KL(N(0, v_f) || N(0, v_r)) of the noised laws by the deviation s of x = s z, in closed form:
    s_f - s_r = alpha / sigma^2 (D_f - D_r), which meets dx_t/ds = alpha z.
    """
    s, n = torch.tensor(0.9, dtype=torch.float64, requires_grad=True), 20000
    base, critic = asked(VARIANCE), asked(float(s.detach()) ** 2)
    alpha, sigma = base.schedule(300)
    t = torch.full((n,), 300.0, dtype=torch.float64)
    z, x = noise(n, seed=1), (s.detach() * noise(n)).requires_grad_()
    (g,) = torch.autograd.grad(score_loss(x, base, critic, t, z).sum(), x)
    with torch.no_grad():  # times d, and without the weight
        real = base.denoiser.predict(alpha * x + sigma * z, t)[0]
        g = g * x[0].numel() * (x - real).abs().mean((1, 2, 3), keepdim=True)
        own = (g * noise(n)).mean() * alpha**2 / sigma**2
    v_r, v_f = alpha**2 * VARIANCE + sigma**2, alpha**2 * s**2 + sigma**2
    (exact,) = torch.autograd.grad((v_f / v_r - 1 - torch.log(v_f / v_r)) / 2, s)
    assert_close(own, exact, rtol=0.03, atol=0)


def test_a_chain_that_draws_the_data_is_left_alone():
    base, critic = asked(VARIANCE), asked(VARIANCE)
    x = noise().requires_grad_()
    t = torch.tensor([100.0, 800.0], dtype=torch.float64)
    score_loss(x, base, critic, t, noise(seed=1)).sum().backward()
    assert x.grad.abs().max() < 1e-12


def test_the_critic_is_right_where_its_loss_is_least():
    x, z = 0.8 * noise(4000), noise(4000, seed=1)
    t = torch.full((4000,), 200.0, dtype=torch.float64)
    with torch.no_grad():
        found = [float(critic_loss(x, asked(v), t, z).mean()) for v in (0.5, 0.64, 0.8)]
    assert found[1] < min(found[0], found[2])


def test_the_game_ends_at_the_deviation_of_the_data(tmp_path):
    """One step from t = 500, that draws 0.9 z at first; the critic starts as the base."""
    student = PerTime([T])
    alpha, sigma = student.schedule(T)
    whole = sigma**2 / (alpha**2 * VARIANCE + sigma**2)
    student.network.weights.data[:] = (1 - 0.9 * alpha) / whole
    chain = make_sampler("ddim", student, (T,))
    config = FinetuneConfig(
        method="score", score=ScoreConfig(updates=3, critic_rate=3.0), iterations=240,
        batch_size=32, lr=0.01, ema_decay=0.0, grad_clip=0.0, select=SelectConfig(every=0),
    )  # fmt: skip
    loss = Score(config, Source(teacher=asked(VARIANCE)))
    finetune(config, chain, (), tmp_path / "c", lambda **event: None, loss=loss)
    with torch.no_grad():
        assert abs(float(chain(noise(2000)).std()) - VARIANCE**0.5) < 0.1
    critic = float(loss.beside.variance.detach())
    assert abs(critic**0.5 - VARIANCE**0.5) < 0.15


def test_each_has_its_iterations_its_rate_and_its_gradient(tmp_path):
    student, events = PerTime([T]), []
    chain = make_sampler("ddim", student, (T,))
    for iterations in range(1, 5):
        config = FinetuneConfig(
            method="score", score=ScoreConfig(updates=2, critic_rate=10.0), batch_size=4,
            iterations=iterations, lr=0.01, ema_decay=0.0, select=SelectConfig(every=0),
        )  # fmt: skip
        loss = Score(config, Source(teacher=asked(0.5)))
        before = float(student.network.weights.detach())
        finetune(config, chain, (), tmp_path / "c", lambda **event: None, loss=loss)
        after = float(student.network.weights.detach())
        events.append((abs(after - before), float(loss.beside.variance.detach())))
    moved = [change > 0 for change, _ in events]
    assert moved == [False, False, True, False]
    assert abs(events[0][1] - 0.5) > 0.09  # ten times lr, Adam's first step
    assert events[1][1] == events[2][1] != events[3][1]
