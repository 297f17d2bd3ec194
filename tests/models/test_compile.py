"""A compiled network is trusted only if its gradient is eager's. Nothing is compiled here."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mmd_ddm.models.compile import CompileError, compile_checked, gradient_error


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn((3, 1, 8, 8), generator=generator), torch.tensor([900, 500, 20])


# What a compiler may make of a network.


def honest(network, x_t, t):
    return network(x_t, t)


def halved(network, x_t, t):
    """The right output, half of the gradient."""
    output = network(x_t, t).sample
    return (output + output.detach()) / 2


def silent(network, x_t, t):
    """The right output, and no gradient at all in the first layer."""
    parameters = {
        key: p.detach() if key.startswith("conv_in") else p
        for key, p in network.named_parameters()
    }
    return functional_call(network, parameters, (x_t, t))


def perturbed(network, x_t, t):
    """Another network's output and gradient."""
    generator = torch.Generator().manual_seed(1)
    parameters = {
        key: p + 0.3 * p.detach().abs().mean() * torch.randn(p.shape, generator=generator)
        for key, p in network.named_parameters()
    }
    return functional_call(network, parameters, (x_t, t))


def not_a_number(network, x_t, t):
    return network(x_t, t).sample * float("nan")


def test_no_error_against_itself(denoiser, batch):
    assert gradient_error(denoiser, denoiser.network, *batch) == 0


def test_the_error_is_relative_to_eagers_gradient(denoiser, batch):
    def scaled(x_t, t):
        return denoiser.network(x_t, t).sample * 1.001

    # The loss is a square, and so is the factor of its gradient.
    assert gradient_error(denoiser, scaled, *batch) == pytest.approx(1.001**2 - 1, rel=1e-3)
    error = gradient_error(denoiser, partial(halved, denoiser.network), *batch)
    assert error == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("function", [silent, perturbed])
def test_a_wrong_network_is_far_off(function, denoiser, batch):
    assert gradient_error(denoiser, partial(function, denoiser.network), *batch) > 0.05


class Compiled(nn.Module):
    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x_t, t):
        return self.function(self.network, x_t, t)


def compiles_to(function, monkeypatch):
    def stand_in(network, *, dynamic):
        assert dynamic is False
        return Compiled(network, function)

    monkeypatch.setattr(torch, "compile", stand_in)


def test_an_honest_compiler_is_trusted(denoiser, batch, monkeypatch):
    compiles_to(honest, monkeypatch)
    before = [p.clone() for p in denoiser.parameters()]
    compiled = compile_checked(denoiser, 3)
    assert isinstance(compiled, Compiled)
    assert compiled.network is denoiser.network
    assert all(torch.equal(p, b) for p, b in zip(denoiser.parameters(), before, strict=True))
    assert all(p.grad is None for p in denoiser.parameters())


@pytest.mark.parametrize("function", [silent, halved, perturbed, not_a_number])
def test_a_wrong_gradient_is_refused(function, denoiser, monkeypatch):
    compiles_to(function, monkeypatch)
    with pytest.raises(CompileError, match=r"wrong gradient .* run without compile"):
        compile_checked(denoiser, 3)
