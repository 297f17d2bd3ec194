"""Every verb that reads images takes the same options, and says what it read."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Counting, digits, mmd_ddm, read, save_model
from picture_files import encode, save_files
from PIL import Image

import mmd_ddm as mmd
from mmd_ddm.config import ChainConfig, FinetuneConfig, HeadConfig, PretrainConfig, SelectConfig
from mmd_ddm.data.split import split_images
from mmd_ddm.jobs.finetune import run
from mmd_ddm.jobs.gamma import estimate_gamma
from mmd_ddm.jobs.genie_head import distil_head
from mmd_ddm.jobs.pretrain import pretrain
from mmd_ddm.runs.progress import Progress
from mmd_ddm.settings import to_mapping

VERBS = {
    "sample": ("base", "--start-from", "photos", "-n", 2, "--out", "new"),
    "evaluate": ("base", "--data", "photos", "--out", "new"),
    "bench": ("base", "--data", "photos", "--out", "new"),
    "gamma": ("base", "--data", "photos"),
    "genie-head": ("base", "--data", "photos"),
    "finetune": ("base", "--data", "photos", "--out", "new"),
    "pretrain": ("--data", "photos", "--out", "new"),
}


@pytest.fixture
def photos(workplace):
    """Digits with a corner that can be seen through, of which one is damaged and one is large."""
    alpha = Image.fromarray(np.full((8, 8), 255, np.uint8))
    alpha.putpixel((0, 0), 0)
    files = {}
    for i, digit in enumerate(digits(12)):
        image = Image.fromarray(digit)
        image.putalpha(alpha)
        files[f"{i:02d}.png"] = encode(np.asarray(image))
    files["03.png"] = files["03.png"][:50]
    files["04.png"] = encode(digits(5)[4].repeat(3, 0).repeat(3, 1))
    return save_files(workplace / "photos", files)


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_the_same_everywhere(verb, photos):
    place = photos.parent
    found = mmd_ddm(place, verb, *VERBS[verb], "--background", "beige")
    assert (found.code, found.err) == (
        2, "mmd-ddm: error: background is white, black or #rrggbb; got 'beige'\n",
    )  # fmt: skip
    found = mmd_ddm(place, verb, *VERBS[verb])
    assert found.code == 2
    assert "pass --background" in found.err
    found = mmd_ddm(place, verb, *VERBS[verb], "--background", "white", "--resize")
    assert found.err == (
        "mmd-ddm: error: photos/03.png cannot be read: it is a PNG picture, damaged (image file "
        "is truncated); --skip-damaged leaves out what cannot be read\n"
    )


def test_what_was_done_instead_of_refusing_is_said(photos):
    ways = ("--background", "white", "--resize", "--skip-damaged")
    words = ("base", "--data", "photos", "--features", "pixels", "-n", 4, "--steps", 3, *ways)
    done = mmd_ddm(photos.parent, "evaluate", *words, "--metrics", "kid", "--out", "out.json")
    assert done.code == 0, done.err
    assert "read 11 images of photos: 12 pictures\n" in done.out
    assert "left out 1 picture of photos that cannot be read, of 12: photos/03.png\n" in done.out
    assert read(photos.parent / "out.json")["protocol"]["real"] == 11
    images = mmd.images("photos", (1, 8, 8), background="white", resize=True, skip_damaged=True)
    assert images.pixels[0, 0, 0, 0] == 255
    assert images.sha256 == read(photos.parent / "out.json")["protocol"]["data_sha256"]


class Reading(Counting):
    """Of a job only what comes before it begins."""

    @contextlib.contextmanager
    def bar(self, title, total):
        raise KeyboardInterrupt
        yield


JOBS = {
    "sample": lambda to: mmd.sample("base", "new", n=2, start_from="digits.npy", progress=to),
    "gamma": lambda to: estimate_gamma("base", "digits.npy", progress=to),
    "genie-head": lambda to: distil_head("base", HeadConfig("digits.npy"), progress=to),
    "pretrain": lambda to: pretrain(PretrainConfig("digits.npy"), Path("new"), progress=to),
    "finetune": lambda to: run(
        FinetuneConfig("base", "digits.npy", chain=ChainConfig(3), judges=("pixels",)),
        Path("new"), progress=to,
    ),
    "evaluate": lambda to: mmd.evaluate("base", "digits.npy", features=["pixels"], progress=to),
    "bench": lambda to: mmd.compare("base", "digits.npy", features=["pixels"], progress=to),
}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_every_job_says_what_it_read(job, workplace):
    progress = Reading()
    assert isinstance(progress, Progress)
    with pytest.raises(KeyboardInterrupt):
        JOBS[job](progress)
    assert "read 60 images of digits.npy: the array of digits.npy" in progress.said


def test_what_was_chosen_of_a_source_is_found_again(workplace, monkeypatch):
    """By the run's record, from another folder as well."""
    np.savez("set.npz", x_train=digits(40), x_test=digits(60)[40:], y_train=np.zeros(40))
    config = FinetuneConfig("base", "set.npz:x_train", "set.npz:x_test", judges=("pixels",))
    train, held = mmd.images("set.npz:x_train"), mmd.images("set.npz:x_test")
    assert (len(train), len(held)) == (40, 20)
    parts = split_images(train, held, seed=0, select=True)
    save_model(workplace / "run" / "model", ChainConfig(3))
    about = {"settings": to_mapping(config), "inputs": parts.hashes, "folder": str(workplace)}
    (workplace / "run/run.json").write_text(json.dumps({"verb": "finetune", **about}))
    (workplace / "elsewhere").mkdir()
    for folder in (workplace, workplace / "elsewhere"):
        monkeypatch.chdir(folder)
        found = mmd.evaluate(
            str(workplace / "run"), features=["pixels"], metrics=["kid"], n=4
        ).record
        assert found["protocol"]["data_sha256"] == parts.heldout.sha256
    # What no model is named by are images.
    monkeypatch.chdir(workplace)
    rows = mmd.evaluate("set.npz:x_train", "set.npz:x_test", features=["pixels"], n=4).record
    assert rows["rows"][0]["model"] == "set.npz:x_train"


def test_a_run_goes_on_with_the_same_images_however_they_are_read(photos):
    config = FinetuneConfig(
        "base", "photos", chain=ChainConfig(3), select=SelectConfig(every=0), judges=("pixels",),
        iterations=0, judge_samples=4, compare_steps=(), background="white", resize=True,
        skip_damaged=True,
    )  # fmt: skip
    run(config, Path("new"))
    with pytest.raises(ValueError, match="new began with other data or weights"):
        run(replace(config, background="black"), Path("new"))
    (photos / "03.png").unlink()
    run(replace(config, background="#ffffff", skip_damaged=False), Path("new"))
