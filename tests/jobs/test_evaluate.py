"""A model judged by a call: what is drawn again when anything that decides it has changed."""

import json
import subprocess
import sys

import pytest
import torch
from commands import Counting, forge_gamma, forge_head, make_head, read

import mmd_ddm as mmd
from mmd_ddm.jobs.build import load_model
from mmd_ddm.runs.fingerprint import weights_sha256


@pytest.fixture
def place(workplace):
    forge_gamma(workplace)
    forge_head(workplace)
    return workplace


def drawn(sampler, verb="evaluate"):
    """How many images the same question has to draw now."""
    progress = Counting()
    options = {"n": 4, "features": ["pixels"], "progress": progress}
    if verb == "evaluate":
        mmd.evaluate("base", "digits.npy", mmd.Chain(3, sampler), **options)
    else:
        options |= {"spacings": ["midpoint"], "steps": [3]}
        mmd.compare("base", "digits.npy", samplers=[sampler], **options)
    return progress.drawn


def distil_anew(place):
    head = make_head()
    torch.nn.init.normal_(
        head.conv_out.weight, std=0.01, generator=torch.Generator().manual_seed(7)
    )
    head.save(place / "base", weights_sha256(load_model("base").denoiser.network))


def change_gamma(place):
    path = place / "base" / "gamma.json"
    path.write_text(json.dumps({**read(path), "values": [0.5] * 1000}))


def change_schedule(place):
    path = place / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**read(path), "beta_end": 0.03}))


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
@pytest.mark.parametrize(
    ("sampler", "change"),
    [
        ("genie-head", distil_anew),
        ("analytic-dpm", change_gamma),
        ("analytic-ddim", change_gamma),
        ("ddim", change_schedule),
    ],
)
def test_what_decides_the_images_has_changed_and_they_are_drawn_again(
    verb, sampler, change, place
):
    assert (drawn(sampler, verb), drawn(sampler, verb)) == (4, 0)
    change(place)
    assert (drawn(sampler, verb), drawn(sampler, verb)) == (4, 0)


def test_a_head_of_no_concern_changes_nothing(place):
    assert drawn("ddim") == 4
    distil_anew(place)
    change_gamma(place)
    assert drawn("ddim") == 0


def test_what_one_verb_drew_the_other_knows(place):
    assert drawn("heun", "evaluate") == 4
    assert drawn("heun", "compare") == 0


def test_seeds_give_means_with_errors_over_them(place):
    photos = mmd.images("digits.npy", (1, 8, 8))
    options = {"n": 4, "features": ["pixels"], "metrics": ["kid", "fd"]}
    found = mmd.evaluate("base", photos, mmd.Chain(3), seeds=3, **options)
    (row,) = found.rows
    assert row["seeds"] == 3
    scores = row["spaces"]["pixels"]
    assert scores.keys() == {"kid", "kid_se", "fd", "fd_se"}
    one = mmd.evaluate("base", photos, mmd.Chain(3), **options).rows[0]
    assert one["spaces"]["pixels"]["kid"] != scores["kid"]


@pytest.mark.slow
def test_two_processes_that_ask_the_same_at_once_both_end_well(place):
    question = "evaluate base --data digits.npy --steps 3 -n 8 --features pixels --out r.json"
    command = [sys.executable, "-m", "mmd_ddm", *question.split()]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    ends = [(process.wait(), process.stderr.read()) for process in both]
    for process in both:
        process.stderr.close()
    assert ends == [(0, b"")] * 2
    assert read(place / "r.json")["rows"][0]["steps"] == 3
    for kind in ("samples", "features", "scores"):
        files = [path.name for path in (place / "cache" / kind).iterdir()]
        assert not [name for name in files if ".tmp" in name or ".lock" in name]
    assert len(list((place / "cache" / "samples").iterdir())) == 1
