"""DDIM and DDPM against diffusers, step for step; gradients against finite differences."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import select_times
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.ddpm import DDPM


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def diffusers_walk(scheduler, denoiser, steps, x_t, take_step):
    """The loop of diffusers' pipelines, with our table of noise levels in float64."""
    scheduler.alphas_cumprod = denoiser.schedule.alpha_bar
    scheduler.alphas = scheduler.alphas_cumprod.clone()
    scheduler.alphas[1:] /= scheduler.alphas_cumprod[:-1]
    scheduler.betas = 1 - scheduler.alphas
    scheduler.set_timesteps(steps)
    path = [x_t]
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            x_t = take_step(denoiser.network(x_t, t).sample, t, x_t, i)
            path.append(x_t)
    return path


def our_walk(sampler, x_T, noise=None):
    path = [x_T]
    step = sampler.step

    def recording(*arguments):
        path.append(step(*arguments))
        return path[-1]

    sampler.step = recording
    with torch.no_grad():
        final = sampler(x_T, noise)
    assert final is path[-1]
    return path


def assert_same_path(ours, theirs):
    assert len(ours) == len(theirs)
    for x_t, other in zip(ours, theirs, strict=True):
        assert x_t.dtype == torch.float64
        assert torch.allclose(x_t, other, rtol=1e-8, atol=1e-8)


class TestAgainstDiffusers:
    @pytest.mark.parametrize(
        ("spacing", "steps"), [("leading", 5), ("leading", 7), ("trailing", 5), ("trailing", 1)]
    )
    @pytest.mark.parametrize("clip", [False, True])
    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_ddim_path(self, denoiser64, eta, clip, spacing, steps):
        scheduler = DDIMScheduler(clip_sample=clip, timestep_spacing=spacing)
        x_T, noise = normal(2, 1, 8, 8), normal(steps, 2, 1, 8, 8, seed=1)

        def take_step(eps, t, x_t, i):
            return scheduler.step(eps, t, x_t, eta=eta, variance_noise=noise[i]).prev_sample

        theirs = diffusers_walk(scheduler, denoiser64, steps, x_T, take_step)
        times = select_times(spacing, steps, 1000)
        sampler = DDIM(denoiser64, times, eta=eta, clip=clip)
        assert_same_path(our_walk(sampler, x_T, noise if eta else None), theirs)

    @pytest.mark.parametrize("steps", [4, 5, 7])
    @pytest.mark.parametrize("clip", [False, True])
    @pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
    def test_ddpm_path(self, denoiser64, variance, clip, steps, monkeypatch):
        kind = variance.replace("-", "_")
        scheduler = DDPMScheduler(variance_type=kind, clip_sample=clip, timestep_spacing="leading")
        x_T, noise = normal(2, 1, 8, 8), normal(steps, 2, 1, 8, 8, seed=1)
        draws = iter(noise)
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: next(draws))

        def take_step(eps, t, x_t, i):
            return scheduler.step(eps, t, x_t).prev_sample

        theirs = diffusers_walk(scheduler, denoiser64, steps, x_T, take_step)
        assert torch.equal(next(draws), noise[-1])  # the step to the data adds no noise
        times = select_times("leading", steps, 1000)
        sampler = DDPM(denoiser64, times, variance=variance, clip=clip)
        assert_same_path(our_walk(sampler, x_T, noise), theirs)

    @pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
    def test_untouched_scheduler_in_float32(self, tiny_unet, kind):
        """As people run it: float32, and diffusers' own float32 table."""
        scheduler = DDIMScheduler(beta_schedule=kind, clip_sample=True)
        scheduler.set_timesteps(5)
        unet = tiny_unet()
        denoiser = UNet2D(unet, NoiseSchedule.from_config(scheduler.config), shape=(1, 8, 8))
        x_t = x_T = normal(2, 1, 8, 8, dtype=torch.float32)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x_t = scheduler.step(unet(x_t, t).sample, t, x_t).prev_sample
            ours = DDIM(denoiser, select_times("leading", 5, 1000), clip=True)(x_T)
        assert torch.allclose(ours, x_t, rtol=0, atol=2e-5)

    def test_ddim_with_eta_1_is_ddpm_with_the_small_variance(self, denoiser64):
        times, x_T = (900, 500.5, 120, 3), normal(2, 1, 8, 8)
        noise = normal(4, 2, 1, 8, 8, seed=1)
        with torch.no_grad():
            ddim = DDIM(denoiser64, times, eta=1.0)(x_T, noise)
            ddpm = DDPM(denoiser64, times, variance="fixed-small")(x_T, noise)
        assert torch.allclose(ddim, ddpm, rtol=1e-10, atol=1e-10)


class TestWalk:
    @pytest.mark.parametrize("recompute", [False, True])
    @pytest.mark.parametrize("steps", [1, 3, 15])
    def test_nfe_counts_the_network_calls(self, denoiser, steps, recompute):
        calls = []
        denoiser.network.register_forward_pre_hook(lambda *_: calls.append(1))
        sampler = DDIM(denoiser, select_times("leading", steps, 1000), recompute=recompute)
        with torch.no_grad():
            sampler(normal(1, 1, 8, 8, dtype=torch.float32))
        assert sampler.nfe == len(calls) == steps

    def test_recomputation_calls_again_in_the_backward_pass_only(self, denoiser):
        calls = []
        denoiser.network.register_forward_pre_hook(lambda *_: calls.append(1))
        sampler = DDIM(denoiser, (800, 400, 0), recompute=True)
        sample = sampler(normal(1, 1, 8, 8, dtype=torch.float32))
        assert sampler.nfe == len(calls) == 3
        sample.sum().backward()
        assert sampler.nfe == 3
        assert len(calls) == 6

    def test_recomputation_keeps_less(self, denoiser):
        def kept(recompute: bool) -> int:
            sizes = []
            hooks = torch.autograd.graph.saved_tensors_hooks(
                lambda x: sizes.append(x.numel()) or x, lambda x: x
            )
            with hooks:
                DDIM(denoiser, (800, 400, 0), recompute=recompute)(x_T)
            return sum(sizes)

        x_T = normal(4, 1, 8, 8, dtype=torch.float32)
        assert kept(True) < kept(False) / 20

    @pytest.mark.parametrize("recompute", [False, True])
    def test_no_grad_leaves_no_graph(self, denoiser, recompute):
        x_T = normal(1, 1, 8, 8, dtype=torch.float32).requires_grad_()
        sampler = DDIM(denoiser, (800, 0), recompute=recompute)
        with torch.no_grad():
            assert sampler(x_T).grad_fn is None
        assert sampler(x_T).grad_fn is not None

    def test_an_image_does_not_depend_on_its_batch(self, denoiser64):
        x_T, noise = normal(5, 1, 8, 8), normal(3, 5, 1, 8, 8, seed=1)
        sampler = DDPM(denoiser64, (999, 500, 10), clip=True)
        with torch.no_grad():
            whole = sampler(x_T, noise)
            alone = sampler(x_T[3:4], noise[:, 3:4])
        assert torch.allclose(whole[3:4], alone, rtol=0, atol=1e-11)

    def test_clipped_samples_lie_in_range(self, denoiser):
        x_T = 3 * normal(2, 1, 8, 8, dtype=torch.float32)
        with torch.no_grad():
            clipped = DDIM(denoiser, (999, 500, 0), clip=True)(x_T)
            free = DDIM(denoiser, (999, 500, 0))(x_T)
        assert float(clipped.abs().max()) <= 1
        assert float(free.abs().max()) > 1

    def test_draws_count_the_noise_of_a_sample(self, denoiser):
        assert DDIM(denoiser, (5, 3, 1)).draws == 1
        assert DDIM(denoiser, (5, 3, 1), eta=0.1).draws == 4
        assert DDPM(denoiser, (5, 3, 1)).draws == 4

    @pytest.mark.parametrize("make", [DDPM, lambda *a: DDIM(*a, eta=1.0)])
    def test_a_stochastic_sampler_without_noise_is_refused(self, denoiser, make):
        with pytest.raises(ValueError, match="adds noise at every step: pass noise"):
            make(denoiser, (5, 3))(normal(1, 1, 8, 8, dtype=torch.float32))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda d: DDIM(d, (5, 3), eta=1.5), "eta must be from 0 to 1; got 1.5"),
            (lambda d: DDPM(d, (5, 3), variance="learned"), "unknown variance 'learned'"),
            (lambda d: DDIM(d, (3, 5)), "must decrease"),
            (lambda d: DDPM(d, (1000, 5)), "outside 0 ... 999"),
        ],
    )
    def test_impossible_settings_are_refused(self, denoiser, make, message):
        with pytest.raises(ValueError, match=message):
            make(denoiser)


SAMPLERS = {
    "ddim": (DDIM, {}),
    "ddim-0.5": (DDIM, {"eta": 0.5}),
    "ddpm-small": (DDPM, {"variance": "fixed-small"}),
    "ddpm-large": (DDPM, {"variance": "fixed-large"}),
}
TIMES = (900, 500, 100)


class TestGradient:
    def gradients(self, denoiser, name, **options):
        """The gradient of a generic function of the samples, by x_T and by every weight."""
        kind, settings = SAMPLERS[name]
        x_T = normal(2, 1, 8, 8).requires_grad_()
        samples = kind(denoiser, TIMES, **settings, **options)(x_T, normal(3, 2, 1, 8, 8, seed=1))
        loss = (samples * normal(2, 1, 8, 8, seed=2)).sum() + (samples**2).sum()
        return torch.autograd.grad(loss, [x_T, *denoiser.parameters()])

    @pytest.mark.parametrize("clip", [False, True])
    @pytest.mark.parametrize("name", SAMPLERS)
    def test_recomputation_changes_nothing(self, denoiser64, name, clip):
        plain = self.gradients(denoiser64, name, clip=clip)
        recomputed = self.gradients(denoiser64, name, clip=clip, recompute=True)
        for a, b in zip(plain, recomputed, strict=True):
            assert torch.equal(a, b)
        assert all(bool(g.isfinite().all()) for g in plain)

    def test_every_weight_has_a_gradient(self, denoiser64):
        names = [name for name, _ in denoiser64.named_parameters()]
        gradients = self.gradients(denoiser64, "ddim")[1:]
        still = [n for n, g in zip(names, gradients, strict=True) if not bool(g.any())]
        assert [n for n in still if "to_k.bias" not in n] == []  # softmax cancels a key's bias

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_gradient_equals_finite_differences(self, denoiser64, name):
        kind, settings = SAMPLERS[name]
        noise, weights = normal(3, 2, 1, 8, 8, seed=1), normal(2, 1, 8, 8, seed=2)
        variables = [normal(2, 1, 8, 8), *(p.detach() for p in denoiser64.parameters())]
        directions = [normal(*v.shape, seed=3 + i) for i, v in enumerate(variables)]

        def loss(h: float) -> float:
            x_T, *values = (v + h * d for v, d in zip(variables, directions, strict=True))
            with torch.no_grad():
                for p, value in zip(denoiser64.parameters(), values, strict=True):
                    p.copy_(value)
                samples = kind(denoiser64, TIMES, **settings)(x_T, noise)
            return float((samples * weights).sum() + (samples**2).sum())

        variables = [v.clone() for v in variables]
        gradients = self.gradients(denoiser64, name)
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        # Fourth-order central difference: the chain is steep, a second-order one is too coarse.
        h = 1e-5
        numeric = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
        assert numeric == pytest.approx(slope, rel=1e-6)

    def test_the_clip_passes_the_gradient_straight_through(self, denoiser64):
        """From one time to the data the sample is the clipped x_0; the gradient, x_0's own."""
        x_T = normal(2, 1, 8, 8).requires_grad_()
        free, clipped = (DDIM(denoiser64, (600,), clip=c)(x_T) for c in (False, True))
        assert not torch.allclose(free, clipped)
        weights = normal(2, 1, 8, 8, seed=2)
        expected, got = (torch.autograd.grad((s * weights).sum(), x_T)[0] for s in (free, clipped))
        assert torch.allclose(got, expected, rtol=1e-12)
