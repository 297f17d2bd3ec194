"""Models and images told apart by their names."""

import numpy as np
import pytest
from commands import mmd_ddm, save_model
from PIL import Image

from mmd_ddm.config import ChainConfig, ReadConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.jobs.build import Model
from mmd_ddm.jobs.sources import load_sources, shape_of


@pytest.fixture
def place(workplace):
    """Beside base and digits.npy: a run of sample, a folder of grey pictures, one of colour."""
    assert mmd_ddm(workplace, "sample", "base", "-n", 4, "--out", "drawn").code == 0
    for folder, mode in (("grey", "L"), ("colour", "RGB")):
        (workplace / folder).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(workplace / folder / f"{i}.png")
    return workplace


def load(*sources, **read):
    return load_sources(sources, "cpu", ReadConfig(**read))


def test_what_no_model_is_named_by_are_images(place):
    model, *sets = load("base", "digits.npy", "drawn", place / "grey")
    assert isinstance(model, Model)
    assert [(images.source, len(images)) for images in sets] == [
        ("digits.npy", 60), ("drawn", 4), (str(place / "grey"), 3),
    ]  # fmt: skip
    assert load("fashion-mnist")[0].name == "fashion-mnist"
    assert len(load("fashion-mnist-heldout")[0]) == 3000


def test_the_pictures_say_how_many_channels_there_are(place):
    assert [shape_of(load(name)[0]) for name in ("grey", "colour", "drawn", "digits.npy")] == [
        (1, 8, 8), (3, 8, 8), (1, 8, 8), (1, 8, 8),
    ]  # fmt: skip


def test_what_is_loaded_stays_as_it_is(place):
    (model,) = load("base")
    images = load("digits.npy")[0]
    assert load(model, images) == [model, images]


@pytest.mark.parametrize(
    ("sources", "said"),
    {
        (): "nothing to evaluate",
        ("nowhere",): "no model at 'nowhere': .*; nor are there images of that name",
        ("empty",): "empty is no model, nor images to judge: empty holds no images",
        ("unfinished",): "unfinished is a run without a model: finish it",
        ("base", "colour"): r"colour is no model, nor .*has channels RGB; the model takes 1",
        ("digits.npy", "colour"): "colour is no model, nor .*has channels RGB",
        ("base", "large"): "large has images of 1x16x16, .* 1x8x8: evaluate them one by one",
    }.items(),
    ids=str,
)
def test_what_cannot_be_judged(sources, said, place):
    (place / "empty").mkdir()
    (place / "unfinished").mkdir()
    (place / "unfinished" / "run.json").write_text('{"verb": "finetune"}')
    large = ImageSet(load("digits.npy")[0].pixels.repeat(1, 1, 2, 2), "large")
    with pytest.raises(ValueError, match=said):
        load(*(large if source == "large" else source for source in sources))


def test_images_take_the_size_of_the_model_where_that_is_asked_for(place):
    model, images = load("base", "colour", resize=True)
    assert shape_of(model) == shape_of(images) == (1, 8, 8)


def test_a_run_of_ours_is_a_model(place):
    save_model(place / "run" / "model", ChainConfig(3))
    (model,) = load("run")
    assert model.chain.steps == 3
