"""What a run has seen never judges it: dropped, counted, said, or not known and said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Counting, mmd_ddm, read, save_model

import mmd_ddm as mmd
from mmd_ddm.config import ChainConfig, FinetuneConfig
from mmd_ddm.data.images import ImageSet
from mmd_ddm.data.split import split_images
from mmd_ddm.settings import to_mapping

CHAIN = ChainConfig(3)
CONFIG = FinetuneConfig("base", "digits.npy", chain=CHAIN, judges=("pixels",))
OPTIONS = {"features": ["pixels"], "metrics": ["kid"], "n": 4}


@pytest.fixture
def parts(workplace):
    """What a run named ``run`` has matched, selected by and held out."""
    save_model(workplace / "run" / "model", CHAIN)
    parts = mmd.images("digits.npy").split(seed=0)
    record(CONFIG, parts.hashes)
    return parts


def record(config, inputs):
    about = {"verb": "finetune", "settings": to_mapping(config), "inputs": inputs}
    Path("run/run.json").write_text(json.dumps(about))


def evaluate(data=None, source="run"):
    """Protocol, role of the judge, and what was said."""
    progress = Counting()
    found = mmd.evaluate(source, data, progress=progress, **OPTIONS).record
    return found["protocol"], found["spaces"]["pixels"]["role"], " ".join(progress.said)


def test_by_default_what_the_run_held_out(parts):
    protocol, role, said = evaluate()
    assert protocol["data_sha256"] == parts.heldout.sha256
    assert (protocol["data"], protocol["seen_dropped"]) == ("a fifth of digits.npy", 0)
    assert role == "held-out"
    assert "left out" not in said
    assert evaluate(source="run/model")[0] == protocol
    words = ("run", "-n", 4, "--features", "pixels", "--out", "own.json")
    done = mmd_ddm(Path.cwd(), "evaluate", *words)
    assert done.code == 0, done.err
    assert read(Path("own.json"))["protocol"]["data_sha256"] == parts.heldout.sha256


def test_what_was_matched_or_selected_by_is_left_out_and_counted(parts):
    protocol, role, said = evaluate("digits.npy")
    assert (protocol["real"], protocol["seen_dropped"]) == (12, 48)
    kept = {image.numpy().tobytes() for image in parts.heldout.pixels}
    order = [image for image in mmd.images("digits.npy").pixels if image.numpy().tobytes() in kept]
    assert protocol["data_sha256"] == ImageSet(torch.stack(order), "kept").sha256
    assert role == "held-out"
    assert "48 of the 60 images of digits.npy were matched or selected by: left out" in said


@pytest.mark.parametrize("part", ["matched", "selection"])
def test_nothing_left_is_refused(part, parts):
    with pytest.raises(
        ValueError, match=r"all \d+ images of .* were matched or selected by: give"
    ):
        evaluate(getattr(parts, part))


def test_images_in_memory_that_the_run_held_out_are_known(parts):
    record(replace(CONFIG, data="in memory"), parts.hashes)
    protocol, role, _ = evaluate(parts.heldout)
    assert (protocol["seen_dropped"], role) == (0, "held-out")
    assert "seen_unknown" not in protocol


def change_the_data():
    np.save("digits.npy", np.load("digits.npy") ^ 1)


def lose_the_data():
    shutil.move("digits.npy", "moved.npy")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (lose_the_data, "no data at digits.npy"),
        (change_the_data, "digits.npy holds other images now"),
    ],
)
def test_where_nobody_knows_what_was_matched_no_space_is_held_out(fault, why, parts):
    np.save("other.npy", np.load("digits.npy"))
    fault()
    with pytest.raises(ValueError, match=rf"what run held out cannot be loaded: .*--data \({why}"):
        evaluate()
    protocol, role, said = evaluate("other.npy")
    assert (protocol["real"], protocol["seen_dropped"]) == (60, 0)
    assert protocol["seen_unknown"].startswith(f"run ({why}")
    assert role == "unknown"
    assert "nobody knows which images of other.npy were matched by run" in said


def test_a_model_without_its_run_has_no_images_of_its_own(parts):
    shutil.copytree("run/model", "copy")
    with pytest.raises(ValueError, match="no run of finetune that held images out: give real"):
        evaluate(source="copy")
    protocol, role, _ = evaluate("digits.npy", "copy")
    assert protocol["seen_unknown"] == "copy (its run is not there)"
    assert role == "unknown"


def test_a_base_is_judged_by_all(parts):
    protocol, role, _ = evaluate("digits.npy", "base")
    assert (protocol["real"], role) == (60, "held-out")
    assert not {"seen_dropped", "seen_unknown"} & protocol.keys()
    with pytest.raises(ValueError, match="give real images with --data"):
        evaluate(source="base")


def test_images_beside_a_run_are_judged_by_what_it_held_out(parts):
    protocol, role, _ = evaluate(source=["run", "digits.npy"])
    assert (protocol["data_sha256"], role) == (parts.heldout.sha256, "unknown")


def test_a_comparison_takes_what_its_run_held_out(parts):
    options = {"samplers": ["ddim"], "steps": [3], "n": 4, "features": ["pixels"]}
    found = mmd.compare("base", runs=["run"], **options).record
    assert found["protocol"]["data_sha256"] == parts.heldout.sha256
    assert found["spaces"]["pixels"]["role"] == "held-out"


def test_neighbors_of_other_data_are_not_compared_with_what_was_matched(parts):
    record(CONFIG, {})
    np.save("more.npy", np.concatenate([np.load("digits.npy"), np.load("digits.npy") ^ 1]))
    found = mmd.find_copies("run", data="more.npy", n=40, k=1).record
    more = mmd.images("more.npy")
    held = split_images(more, None, seed=0, select=True).heldout
    seen = {i.numpy().tobytes() for part in (parts.matched, parts.selection) for i in part.pixels}
    fresh = [image for image in held.pixels if image.numpy().tobytes() not in seen]
    assert found["real"] == len(fresh) < len(held)
    assert found["seen_dropped"] == len(held) - len(fresh)
