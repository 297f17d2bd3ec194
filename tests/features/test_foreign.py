"""Inception, CLIP, SigLIP, DINOv2, timm and a person's own module, with weights made at random.

The official weights cannot be had without a network: what is shown here holds for any weights.
"""

import pickle
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from mmd_ddm.data.images import ImageSet
from mmd_ddm.features.bank import cached_features
from mmd_ddm.features.base import normalised
from mmd_ddm.features.inception import SHA256, layers_of_inception
from mmd_ddm.features.registry import make_features
from mmd_ddm.maths.pixels import from_uint8, to_uint8

KINDS = ["inception", "inception-spatial", "clip", "siglip", "dinov2", "timm", "import"]
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
OWN_MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 12))
    def forward(self, x):
        return torch.sin(x.mean((2, 3)).sum(1)[:, None, None] * self.weight.reshape(3, 4))

def plain(): return 3
class Bad(Net):
    def forward(self, x):
        return x.mean()
ready = Net()
"""


def images(n, channels=3, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, channels, size, size), generator=generator) * 2 - 1


def pixels(n, size=32, seed=0):
    return to_uint8(images(n, 3, size, seed))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Weights under the official file's names, such that activations neither die nor explode."""
    torch.manual_seed(0)
    layers = layers_of_inception()
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.bias.data.uniform_(-0.1, 0.3)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    classifier = nn.Linear(2048, 1008)
    classes = {"fc.weight": classifier.weight.data, "fc.bias": classifier.bias.data}
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save({**layers.state_dict(), **classes}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small networks of every kind but Inception, saved as their libraries save them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    wide = {**small, "intermediate_size": 32, "image_size": 48, "patch_size": 16}
    for name, network in {
        "clip": transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(**wide, projection_dim=12)
        ),
        "siglip": transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**wide)),
        "dinov2": transformers.Dinov2Model(
            transformers.Dinov2Config(**small, image_size=56, patch_size=28)
        ),
    }.items():
        network.save_pretrained(folder / name)
    import timm

    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file(state, folder / "test_resnet.safetensors")
    (folder / "own_space.py").write_text(OWN_MODULE)
    return folder


@pytest.fixture
def space(folder, monkeypatch, request):
    """``space(kind)``: its name as a person would give it."""
    monkeypatch.syspath_prepend(str(folder))

    def name(kind):
        if kind.startswith("inception"):
            return f"{kind}:{request.getfixturevalue('inception_file')}"
        return {
            "clip": f"clip:{folder / 'clip'}",
            "siglip": f"clip:{folder / 'siglip'}",
            "dinov2": f"dinov2:{folder / 'dinov2'}",
            "timm": f"timm:test_resnet@{folder / 'test_resnet.safetensors'}",
            "import": "import:own_space:Net",
        }[kind]

    return name


# What every space is


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_map_whose_gradient_is_that_of_finite_differences(kind, space):
    phi, x = make_features(space(kind), 3), images(1)
    y = phi(x)
    assert y.shape == (1, phi.dim)
    assert y.dtype == torch.float32
    assert not phi.training
    assert not any(p.requires_grad for p in phi.parameters())
    phi, x = phi.double(), x.double().requires_grad_()
    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    weights = torch.randn((1, phi.dim), generator=draw, dtype=torch.float64)
    slope = (torch.autograd.grad((phi(x) * weights).sum(), x)[0] * direction).sum()
    h = 1e-8 if kind in ("inception", "inception-spatial", "timm") else 1e-6  # few ReLUs flip
    with torch.no_grad():
        rise = ((phi(x + h * direction) - phi(x - h * direction)) * weights).sum() / (2 * h)
    assert float(slope) == pytest.approx(float(rise), rel=1e-4)
    assert slope.abs() > 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_has_the_same_vector_in_any_batch(kind, space):
    phi, x = make_features(space(kind), 3), images(2, size=20)
    with torch.no_grad():
        together, apart = phi(x), torch.cat([phi(one) for one in x.split(1)])
    assert (together - apart).norm() < 1e-5 * together.norm()
    assert (together[0] - together[1]).norm() > 1e-4 * together.norm()


@pytest.mark.parametrize("kind", ["clip", "timm", "import"])
def test_features_are_kept_by_content(kind, space, tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path))
    phi, seen = make_features(space(kind), 3), ImageSet(pixels(3), "made up")
    first = cached_features(seen, phi)
    assert torch.equal(first, cached_features(seen, make_features(space(kind), 3)))
    assert len(list(tmp_path.glob("features/*"))) == 1
    assert phi.sha256 == make_features(space(kind), 3).sha256


# Inception


@pytest.fixture(scope="module")
def fidelitys(inception_file):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    outputs = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("of the oracle", outputs, str(inception_file))


def test_inception_is_torch_fidelitys_on_uint8(inception_file, fidelitys):
    """Its own extractor, which reads our file: equal weights, drawn at random."""
    uint8 = pixels(2, size=40)
    nodes = []
    hook = fidelitys.Mixed_6d.branch1x1.register_forward_hook(lambda *a: nodes.append(a[2]))
    with torch.no_grad():
        expected, logits = fidelitys(uint8)
        phi = make_features(f"inception:{inception_file}", 3)
        features = phi(from_uint8(uint8))
        spatial = make_features(f"inception-spatial:{inception_file}", 3)(from_uint8(uint8))
    hook.remove()
    assert (features - expected).abs().max() <= 1e-4
    assert (phi.logits(features) - logits).abs().max() <= 1e-4
    assert (spatial - nodes[0][:, :7].flatten(1)).abs().max() <= 1e-4
    assert min(expected.std(), logits.std(), spatial.std()) > 0.05


def test_the_spatial_node_is_the_first_branch_of_mixed_6d_after_its_relu(inception_file, tmp_path):
    state = torch.load(inception_file, weights_only=True)
    branch = "Mixed_6d.branch1x1."
    state[f"{branch}conv.weight"].zero_()
    state[f"{branch}bn.running_mean"].zero_()
    state[f"{branch}bn.bias"].copy_(torch.arange(192) - 2.0)
    save_file(state, tmp_path / "by_hand.safetensors")
    phi = make_features(f"inception-spatial:{tmp_path / 'by_hand.safetensors'}", 3)
    assert phi.dim == 2023
    vectors = phi(images(1))
    by_hand = torch.tensor([0.0, 0, 0, 1, 2, 3, 4])  # channels 0 to 6: their bias, after ReLU
    assert torch.equal(vectors, by_hand.repeat_interleave(17 * 17)[None])


def test_official_weights_come_from_a_folder_a_cache_or_the_net(
    inception_file, tmp_path, monkeypatch
):
    def offline(url, to, hash_prefix):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MMD_DDM_WEIGHTS", raising=False)
    said = rf"{INCEPTION_FILE} \(SHA-256 {SHA256}\).*MMD_DDM_WEIGHTS.*hub/checkpoints.*:PATH"
    with pytest.raises(ValueError, match=said):
        make_features("inception", 3)
    monkeypatch.setenv("MMD_DDM_WEIGHTS", str(tmp_path))
    (tmp_path / INCEPTION_FILE).write_bytes(inception_file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"is not the file that inception needs: its SHA-256"):
        make_features("inception", 3)


def test_what_holds_no_inception_is_refused(tmp_path):
    save_file({"fc.weight": torch.ones(2), "fc.bias": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds no weights of Inception-V3"):
        make_features(f"inception:{tmp_path / 'w.safetensors'}", 3)
    with pytest.raises(ValueError, match="cannot read weights from"):
        make_features(f"inception:{tmp_path / 'nothing.pth'}", 3)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize("name", ["inception:w.pth", "clip:.", "timm:test_resnet@w.pth"])
def test_nothing_is_unpickled(name, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text((folder / "clip" / "config.json").read_text())
    for file in ("w.pth", "pytorch_model.bin"):
        Path(file).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="cannot"):
        make_features(name, 3)
    assert not Path("harm").exists()


# Spaces of transformers


def test_clip_and_dinov2_are_their_librarys(folder, space):
    x = images(2, size=48)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    clip = transformers.CLIPVisionModelWithProjection.from_pretrained(folder / "clip")
    expected = clip(normalised(x, 48, mean, std)).image_embeds
    assert torch.allclose(make_features(space("clip"), 3)(x), expected, atol=1e-6)
    siglip = transformers.SiglipVisionModel.from_pretrained(folder / "siglip")
    assert torch.allclose(make_features(space("siglip"), 3)(x), siglip(x).pooler_output, atol=1e-5)
    dinov2 = transformers.Dinov2Model.from_pretrained(folder / "dinov2")
    seen = normalised(x, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = dinov2(seen).last_hidden_state[:, 0]
    assert torch.allclose(make_features(space("dinov2"), 3)(x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 32), (300, 300), (80, 120)])
def test_preprocessing_is_clips_own_but_for_its_rounding(shape):
    # Smooth, so that nothing overshoots 0 ... 255, where Pillow clamps.
    phases = np.linspace(0, 5, shape[0])[:, None, None] + np.linspace(0, 7, shape[1])[:, None]
    array = (128 + 90 * np.sin(phases + np.arange(3))).astype(np.uint8)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 224}, use_fast=False)
    expected = processor(array, return_tensors="pt")["pixel_values"]
    mean, std = processor.image_mean, processor.image_std
    ours = normalised(from_uint8(torch.from_numpy(array).permute(2, 0, 1)[None]), 224, mean, std)
    assert ours.shape == expected.shape == (1, 3, 224, 224)
    assert (ours - expected).abs().max() < 1.1 / 255 / min(std)


def test_an_own_folder_stands_for_the_hub(folder, space, tmp_path, monkeypatch):
    monkeypatch.setenv("MMD_DDM_WEIGHTS", str(tmp_path))
    said = r"clip cannot load openai/clip-vit-base-patch32.*model\.safetensors.*MMD_DDM_WEIGHTS"
    with pytest.raises(ValueError, match=said):
        make_features("clip", 3)
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "clip-vit-base-patch32").symlink_to(folder / "clip")
    assert make_features("clip", 3).sha256 == make_features(space("clip"), 3).sha256


def test_another_or_an_incomplete_model_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="it is of type dinov2; known: clip"):
        make_features(f"clip:{folder / 'dinov2'}", 3)
    state = load_file(folder / "clip" / "model.safetensors")
    state.pop("visual_projection.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "clip" / "config.json").read_text())
    with pytest.raises(ValueError, match=r"lacks 1 of its encoder's weights, visual_projection"):
        make_features(f"clip:{tmp_path}", 3)


def test_transformers_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'mmd-ddm\[clip\]'"):
        make_features("dinov2", 3)


# timm, and a module of one's own


def test_timm_is_the_librarys_network_on_its_own_normalisation(folder, space):
    import timm

    path = folder / "test_resnet.safetensors"
    network = timm.create_model("test_resnet", pretrained=False).eval()
    network.load_state_dict(load_file(path))
    x = images(1, size=160)
    mean, std = (torch.tensor(network.default_cfg[k])[:, None, None] for k in ("mean", "std"))
    expected = network.forward_head(
        network.forward_features(((x + 1) / 2 - mean) / std), pre_logits=True
    )
    assert torch.allclose(make_features(space("timm"), 3)(x), expected, atol=1e-5)


def test_timm_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no weights at nowhere"):
        make_features("timm:test_resnet@nowhere", 3)
    with pytest.raises(ValueError, match=r"cannot load timm:resnet50;?.*timm/resnet50\.safeten"):
        make_features("timm:resnet50", 3)
    with pytest.raises(ValueError, match="cannot load timm:no_such_network"):
        make_features("timm:no_such_network", 3)


def test_a_module_of_ones_own(space):
    x = images(2)
    phi = make_features(space("import"), 3)
    expected = torch.sin(x.mean((2, 3)).sum(1)[:, None] * torch.linspace(-1, 1, 12))
    assert torch.allclose(phi(x), expected)
    ready = make_features("import:own_space:ready", 3)
    assert torch.equal(ready(x), phi(x))
    assert ready.sha256 != phi.sha256  # another place may be another function
    for place, said in {
        "own_space:plain": "is a int, no torch.nn.Module",
        "own_space:Nothing": "cannot import own_space:Nothing",
        "no_such_module:Net": "cannot import no_such_module:Net",
        "own_space": "cannot import own_space",
    }.items():
        with pytest.raises(ValueError, match=said):
            make_features(f"import:{place}", 3)
    with pytest.raises(ValueError, match="does not give one vector an image"):
        make_features("import:own_space:Bad", 3)(x)


# Rounding


def test_rounded_images_let_the_gradient_through(space):
    name, x = space("clip"), 1.3 * images(2)
    phi, rounded = make_features(name, 3), make_features(f"{name}+uint8", 3)
    x.requires_grad_()
    written = from_uint8(to_uint8(x)).requires_grad_()
    assert torch.allclose(rounded(x), phi(written), atol=1e-6)
    assert not torch.allclose(rounded(x), phi(x), atol=1e-3)
    ours, plain = (
        torch.autograd.grad(f(v).square().sum(), v)[0] for f, v in ((rounded, x), (phi, written))
    )
    assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-7)
    assert rounded.sha256 == phi.sha256  # of uint8 images they are one space
