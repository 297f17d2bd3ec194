"""Captions through an iteration: encoded, told to the network, matched by frozen embeddings."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mmd_ddm.config import ChainConfig, ConditionConfig, FinetuneConfig, ObjectiveConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.evaluation.measure import Entry, drawn
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.features.texts import embed_texts
from mmd_ddm.jobs.build import Model, check_classes
from mmd_ddm.jobs.under import conditions_of
from mmd_ddm.maths.joint_mmd import joint_mmd2
from mmd_ddm.maths.pixels import clamp_straight_through
from mmd_ddm.maths.random import generator
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.runs.progress import silent
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.losses.base import drawn_labels
from mmd_ddm.training.losses.mmd import mmd_step
from mmd_ddm.training.objective import build_objectives

TIMES, N, CPU = (700, 300, 0), 12, torch.device("cpu")


class Captioned(UNet2D):
    """A network that is told a vector of each caption, made of its letters."""

    of_captions = True

    def encode(self, captions):
        number = {text: i for i, text in enumerate(sorted({*captions}))}
        rows = torch.zeros(len(captions), 32)
        for row, text in zip(rows, captions, strict=True):
            for letter in text:
                row[ord(letter) % 32] += 1
        return Condition({"class_labels": rows}, torch.tensor([number[c] for c in captions]))


@pytest.fixture
def model(tiny_unet, schedule):
    return Captioned(tiny_unet(class_embed_type="identity"), schedule, shape=(1, 8, 8))


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """``clip:FOLDER``, a random text tower that reads bytes."""
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    names = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=names, merges=[], model_max_length=16).save_pretrained(tmp_path / "clip")
    config = CLIPTextConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=8, bos_token_id=0,
        eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPTextModelWithProjection(config).save_pretrained(tmp_path / "clip")
    return f"clip:{tmp_path / 'clip'}"


def photos():
    """Twelve pictures of nine captions: shades, named by letters."""
    captions = [f"shade {chr(97 + i % 9)}" for i in range(N)]
    draw = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (N, 1, 8, 8), generator=draw).to(torch.uint8)
    return ImageSet(pixels, "photos", captions=tuple(captions))


def objectives(under):
    phis = {"pixels": Pixels(1)}
    return build_objectives(
        ObjectiveConfig(("pixels",)), phis, photos(), CPU, silent, **under.to_match
    )


def config(encoder, **condition):
    return FinetuneConfig(
        iterations=2, batch_size=8, micro_batch=3, lr=0, ema_decay=0,
        condition=ConditionConfig(text=encoder, **condition),
    )  # fmt: skip


def test_embeddings_are_of_unit_length_computed_once_and_of_the_text(encoder, monkeypatch):
    texts = ["a cat", "a dog", "a cat", "a very long text that is cut " * 9]
    found = embed_texts(texts, encoder)
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.equal(found[0], found[2])
    assert float((found[0] - found[1]).norm()) > 1e-3
    torch.testing.assert_close(embed_texts(texts[1:2], encoder), found[1:2])
    calls = []
    forward = CLIPTextModelWithProjection.forward
    monkeypatch.setattr(
        CLIPTextModelWithProjection,
        "forward",
        lambda self, *a, **k: calls.append(1) or forward(self, *a, **k),
    )
    assert torch.equal(embed_texts(texts, encoder), found)
    assert not calls
    embed_texts(texts[:2], encoder)
    assert calls == [1]


@pytest.mark.parametrize(
    ("name", "said"),
    [("dinov2", "unknown text encoder 'dinov2'; clip or"), ("clip:none", "clip cannot load none")],
)
def test_other_encoders_are_refused(name, said):
    with pytest.raises(ValueError, match=said):
        embed_texts(["a"], name)


def test_each_caption_has_a_number_and_the_network_is_told_it(model, encoder):
    under = conditions_of(config(encoder).condition, model, photos(), CPU)
    assert under.labels.tolist() == [i % 9 for i in range(N)]
    assert len(under.conditions) == len(under.vectors) == 9
    sampler = make_sampler("ddim", model, TIMES)
    x_T = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        some = sampler(x_T, None, under.conditions[torch.tensor([2, 0, 5])])
        alone = sampler(x_T[2:], None, under.conditions[torch.tensor([5])])
        other = sampler(x_T[2:], None, under.conditions[torch.tensor([4])])
    torch.testing.assert_close(some[2:], alone, rtol=1e-5, atol=1e-5)
    assert float((other - alone).abs().max()) > 1e-4
    assert (
        conditions_of(config(encoder, match="ignore").condition, model, photos(), CPU).to_match
        == {}
    )


@pytest.mark.parametrize("match", ["joint", "class", "ignore"])
def test_finetuning_lowers_the_joint_mmd_of_groups_of_captions(model, encoder, match, tmp_path):
    settings, losses = config(encoder, match=match), []
    under = conditions_of(settings.condition, model, photos(), CPU)
    of = objectives(under)
    sampler = make_sampler("ddim", model, TIMES)
    finetune(
        settings, sampler, of, tmp_path / "state.pt", lambda **event: losses.append(event["loss"]),
        labels=under.labels, conditions=under.conditions,
    )  # fmt: skip
    for step, loss in enumerate(losses):
        z = torch.randn((8, 1, 8, 8), generator=generator(0, 0, step, "finetune"))
        numbers = drawn_labels(settings.condition, under.labels, 8, 0, step)
        if match != "ignore":
            assert numbers.bincount().max() == 4  # two captions, four images each
        with torch.no_grad():
            images = clamp_straight_through(sampler(z, None, under.conditions[numbers]))
            phi = of[0].features(images)
            if match == "ignore":
                expected = mmd_step(sampler, of, z, None, under.conditions[numbers])
            else:
                expected = joint_mmd2(
                    phi, numbers, of[0].bank, under.labels, of[0].kernel, of[0].label_kernel,
                    constant=of[0].constant,
                )  # fmt: skip
        assert loss == pytest.approx(float(expected), rel=1e-4)


def test_the_gradient_reaches_what_reads_the_caption(model, encoder):
    under = conditions_of(config(encoder).condition, model, photos(), CPU)
    of = objectives(under)
    sampler = make_sampler("ddim", model, TIMES, recompute=True)
    z = torch.randn((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    found = []
    for micro_batch in (0, 3):
        model.network.zero_grad()
        condition = under.conditions[torch.arange(8) % 2]
        mmd_step(sampler, of, z, None, condition, micro_batch=micro_batch).backward()
        assert all(bool(p.grad.abs().sum() > 0) for p in model.network.parameters())
        found.append(torch.cat([p.grad.flatten() for p in model.network.parameters()]))
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 1e-5


def test_images_are_drawn_under_the_captions_of_real_ones(model, monkeypatch, tmp_path):
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path))
    entry = Entry("base", "model", ChainConfig(), make_sampler("ddim", model, TIMES))
    real = photos()
    first, _ = drawn(entry, 6, 0, lambda **_: None, like=real)
    order = torch.arange(N - 1, -1, -1)
    other, _ = drawn(entry, 6, 0, lambda **_: None, like=real.take(order))
    assert not torch.equal(first.pixels, other.pixels)
    assert first.labels is None


def test_images_without_captions_are_refused(model):
    plain = ImageSet(photos().pixels, "plain")
    with pytest.raises(ValueError, match="plain has no captions, and tiny draws under them"):
        check_classes([Model("tiny", model, {}, None)], plain)
    check_classes([Model("tiny", model, {}, None)], photos())
