"""Two readings of one network are found out, and two networks of one kind are not."""

import pytest
import torch
from commands import save_model
from torch import nn

from mmd_ddm.features.base import FeatureExtractor, Rounded
from mmd_ddm.features.kinship import shared_network
from mmd_ddm.features.registry import make_features


class Reading(FeatureExtractor):
    """Layers, which are read in some way."""

    def __init__(self, *layers, family=""):
        super().__init__()
        self.name, self.family = f"reading {len(layers)}", family
        self.layers = nn.Sequential(*layers)
        self.freeze()

    def forward(self, images):
        return self.layers(images.flatten(1))


def layer(seed, n=40):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(n, n)


def test_layers_of_one_network_are_the_network():
    part = make_features("efficientnet-lite0-spatial", 1)
    whole = make_features("efficientnet-lite0", 1)
    assert part.weight_digests & whole.weight_digests
    assert shared_network(part, whole) == "both read efficientnet-lite0"
    assert shared_network(whole, make_features("efficientnet-lite0+uint8", 1)) != ""
    assert shared_network(whole, make_features("encoder", 1)) == ""
    assert shared_network(make_features("encoder", 1), make_features("random", 1)) == ""


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wrap", [lambda phi: phi, Rounded], ids=["bare", "rounded"])
def test_a_copy_in_half_precision_is_no_other_network(half, wrap):
    first, second = layer(0), layer(1)
    copy = Reading(layer(0).to(half).float(), layer(2))
    assert not torch.equal(copy.layers[0].weight, first.weight)
    assert shared_network(Reading(first, second), wrap(copy)) == "they have weights in common"


def test_other_weights_of_one_kind_are_another_network():
    assert shared_network(Reading(layer(0)), Reading(layer(1))) == ""


def test_a_family_is_one_network_whatever_its_weights():
    one, other = (Reading(layer(seed), family="inception") for seed in (0, 1))
    assert shared_network(one, other) == "both read inception"


def test_what_networks_have_in_common_by_chance_is_not_counted():
    constant = layer(0)
    constant.weight.data.zero_()
    few = layer(0, n=31)  # 961 values
    assert shared_network(Reading(constant, layer(1)), Reading(constant, few)) == ""
    assert shared_network(Reading(few, layer(1)), Reading(few, layer(2), layer(3))) == ""


def test_two_denoisers_share_their_noise_and_no_network(tmp_path):
    for name in ("one", "other"):
        save_model(tmp_path / name, channels=3)
    one = make_features(f"denoiser:{tmp_path / 'one'}", 3)
    other = make_features(f"denoiser:{tmp_path / 'other'}", 3)
    assert shared_network(one, other) == "they are one space, with equal weights"
    one.register_buffer("z", torch.randn(1, 3, 20, 20))
    other.register_buffer("z", one.z.clone())
    with torch.no_grad():
        for p in other.denoiser.network.parameters():
            p += 0.1
    assert shared_network(one, other) == ""
