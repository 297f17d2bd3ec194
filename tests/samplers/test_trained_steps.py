"""Gradients of some steps alone: those of the chain whose other answers are constants."""

import pytest
import torch

from mmd_ddm.samplers.registry import make_sampler

TIMES = (990, 700.5, 402, 211)


def walk(denoiser, name, steps, recompute=False):
    """A walk's end, its gradients, and the sampler."""
    sampler = make_sampler(name, denoiser, TIMES, recompute=recompute)
    sampler.trained_steps = steps
    draw = torch.Generator().manual_seed(0)
    x_0 = sampler(torch.randn(2, *denoiser.shape, generator=draw, dtype=torch.float64))
    weights = list(denoiser.network.parameters())
    return x_0, torch.autograd.grad(x_0.square().sum(), weights), sampler


def by_hand(denoiser, name, steps):
    """The same with every other answer of the network detached after it was made."""
    answers = []

    def detach(_, inputs, output):
        answers.append(output)
        return output if len(answers) - 1 in steps else output.detach()

    handle = denoiser.register_forward_hook(detach)
    try:
        return walk(denoiser, name, None)
    finally:
        handle.remove()


def agree(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("steps", [[3], [2, 3], [0, 2], [1]])
@pytest.mark.parametrize("name", ["ddim", "unipc", "dpm-solver++-3m"])
def test_gradients_are_those_of_the_calls_that_are_trained(name, steps, recompute, denoiser64):
    whole, all_gradients, _ = walk(denoiser64, name, None)
    x_0, found, sampler = walk(denoiser64, name, steps, recompute)
    assert torch.equal(x_0, whole)
    assert (sampler.nfe, sampler.trained_calls) == (4, len(steps))
    agree(found, by_hand(denoiser64, name, steps)[1])
    assert any(
        (a - b).abs().max() > 1e-3 * b.abs().max()
        for a, b in zip(found, all_gradients, strict=True)
    )


def test_all_steps_are_the_whole_gradient(denoiser64):
    agree(walk(denoiser64, "unipc", [0, 1, 2, 3])[1], walk(denoiser64, "unipc", None)[1])


def test_a_step_of_several_calls_is_trained_as_one(denoiser64):
    assert walk(denoiser64, "heun", [1, 3])[2].trained_calls == 3


def test_what_is_trained_does_not_change_the_fingerprint(denoiser64):
    names = [walk(denoiser64, "ddim", steps)[2].fingerprint for steps in (None, [3])]
    assert names[0] == names[1]
