"""A model judged by a call: what is drawn again when anything that decides it has changed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import Counting, forge_gamma, forge_head, make_head, read, save_model

import mmd_ddm as mmd
from mmd_ddm.data.images import ImageSet
from mmd_ddm.jobs.build import load_model
from mmd_ddm.report.results import results_table
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


# Images from anything


def test_images_are_scored_as_if_a_model_had_drawn_them(place):
    photos, options = mmd.images("digits.npy"), {"features": ["pixels", "denoiser:base"], "n": 8}
    drawn = mmd.evaluate("base", photos, mmd.Chain(3), **options).rows[0]
    (kept,) = (place / "cache" / "samples").glob("*.npz")
    np.save("generated.npy", np.load(kept)["pixels"][:, 0])
    found = mmd.evaluate("generated.npy", "digits.npy", **options)
    (row,) = found.rows
    assert row["spaces"] == drawn["spaces"]
    assert row.keys() == {"name", "model", "samples_sha256", "spaces"}
    assert (row["name"], row["model"]) == ("images", "generated.npy")
    assert {space["role"] for space in found.record["spaces"].values()} == {"unknown"}
    assert not {"seed", "noise"} & found.record["protocol"].keys()
    generated = mmd.images("generated.npy")
    assert mmd.evaluate(generated, photos, **options).record == found.record


def test_models_and_images_have_a_row_each(place):
    sources, progress = ["base", "digits.npy", "fewer.npy"], Counting()
    np.save("fewer.npy", np.load("digits.npy")[:12])
    found = mmd.evaluate(
        sources, "digits.npy", [{"steps": 3}, {"steps": 4}], features=["pixels"], progress=progress
    )
    assert [(row["name"], row.get("steps")) for row in found.rows] == [
        ("base", 3), ("base", 4), ("images", None), ("images", None),
    ]  # fmt: skip
    # All are of as many images as the smallest set holds, which are no first ones of a sorted set.
    assert found.record["protocol"]["samples"] == 12
    assert "12 of the 60, chosen at random, images of digits.npy" in progress.said
    assert "all 12 images of fewer.npy" in progress.said
    some = mmd.images("digits.npy").subset(12)
    assert found.rows[2]["samples_sha256"] == some.sha256
    table = results_table(found.record)
    labels = ["base, 3 steps", "base, 4 steps", "digits.npy", "fewer.npy"]
    assert [*table.columns[6:10]] == labels
    assert all("\N{EN DASH}" not in line[6:10] for line in table.lines)


def test_two_models_of_one_chain_are_told_apart_by_name(place):
    save_model(place / "other", prediction="sample")
    options = {"features": ["pixels"], "metrics": ["kid"], "n": 4}
    found = mmd.evaluate(["base", "other"], "digits.npy", mmd.Chain(3), **options)
    (line,) = results_table(found.record).lines
    assert [*results_table(found.record).columns[6:8]] == [
        "base, 3 steps, base", "base, 3 steps, other",
    ]  # fmt: skip
    assert line[6] != line[7]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chain": {"steps": 3}}, "digits.npy holds images: only a model draws with a chain"),
        ({"chain": mmd.Chain(3)}, "digits.npy holds images"),
        ({"seed": 1}, "digits.npy holds images"),
        ({"seeds": 2}, "digits.npy holds images"),
        ({"n": 61}, "digits.npy holds 60 images; -n 61 takes more"),
        ({"data": None}, "no run of finetune that held images out: give real images with --data"),
        ({"data": "colour.npy"}, "colour.npy holds images of 3x8x8; the model takes 1x8x8"),
        ({"data": ImageSet(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), "mine")}, "mine holds"),
    ],
    ids=str,
)
def test_images_that_cannot_be_judged(options, said, place):
    np.save("colour.npy", np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=said):
        mmd.evaluate("digits.npy", **{"data": "digits.npy", "features": ["pixels"], **options})
