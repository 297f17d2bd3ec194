"""A call that is made again: the gradients of a plain call, and no graph kept until then."""

import pytest
import torch
from torch import nn

from mmd_ddm.samplers.recompute import recomputed


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 2)).double()


def inputs():
    draw = torch.Generator().manual_seed(1)
    return torch.randn((5, 3), generator=draw, dtype=torch.float64).requires_grad_()


def gradients(output, wanted):
    return torch.autograd.grad(output.square().sum(), wanted)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_are_those_of_a_plain_call(network, frozen):
    """With dropout, which draws the same again; of inputs and weights, or of inputs alone."""
    network.requires_grad_(not frozen)
    wanted = [x := inputs(), *(p for p in network.parameters() if p.requires_grad)]
    torch.manual_seed(2)
    plain = network(x)
    torch.manual_seed(2)
    again = recomputed(network, [x], network.parameters())
    torch.rand(3)  # what is drawn between is neither repeated nor disturbed
    state = torch.get_rng_state()
    assert torch.equal(again, plain)
    for a, b in zip(gradients(again, wanted), gradients(plain, wanted), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_an_input_as_well(network):
    def function(x, condition):
        return network.eval()(x if condition is None else condition * x)

    for condition in (None, 2.0):
        wanted = [x := inputs(), *network.parameters()]
        again = recomputed(function, [x, condition], network.parameters())
        plain = gradients(function(x, condition), wanted)
        assert all(map(torch.equal, gradients(again, wanted), plain))


def test_several_outputs_and_plain_inputs(network):
    """An output without gradient, and one that the loss does not see."""

    def function(scale, x, shift):
        return network.eval()(scale * x), shift, x.sum(1)

    x, shift = inputs(), torch.ones(2, dtype=torch.float64)
    wanted = [x, *network.parameters()]
    plain, *_ = function(2.0, x, shift)
    again, same, _ = recomputed(function, [2.0, x, shift], network.parameters())
    assert torch.equal(same, shift)
    for a, b in zip(gradients(again, wanted), gradients(plain, wanted), strict=True):
        assert torch.equal(a, b)


def test_weights_that_are_not_used_have_no_gradient(network):
    unused = nn.Parameter(torch.ones(1))
    recomputed(network, [inputs()], [*network.parameters(), unused]).sum().backward()
    assert unused.grad is None
    assert all(p.grad is not None for p in network.parameters())


def test_a_call_is_one_node_and_keeps_its_inputs_alone(network):
    """A graph between the activations would keep the next call from their place on the heap."""
    kept, x = [], inputs()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        output = recomputed(network, [x], network.parameters())
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    beyond = [node for node, _ in output.grad_fn.next_functions if node is not None]
    assert {node.name() for node in beyond} == {"torch::autograd::AccumulateGrad"}
