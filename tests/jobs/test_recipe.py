"""The recipe: it says what is not set, for K and for the network, and nothing else."""

import json
from itertools import pairwise

import pytest
from commands import mmd_ddm, save_place

import mmd_ddm as mmd
from mmd_ddm.config import FinetuneConfig
from mmd_ddm.jobs.recipe import complete, recipe, words
from mmd_ddm.settings import from_mapping, with_most_steps

SCHEDULE = mmd.NoiseSchedule.linear()
ALL_K = (1, 2, 3, 4, 5, 7, 8, 10, 15, 20, 100)


@pytest.mark.parametrize("steps", ALL_K)
def test_every_number_of_steps_has_settings_that_the_bundled_model_takes(steps):
    asked = {"model": "fashion-mnist", "chain": {"steps": steps}, "recipe": "auto"}
    config = from_mapping(FinetuneConfig, complete(asked))
    model = mmd.load("fashion-mnist", "cpu")
    assert len(mmd.build_sampler(config.chain, model.denoiser).times) == steps
    assert config.lr < 1e-4


def test_what_is_set_stays():
    chain = {"steps": 12, "backward": "random-2"}
    own = {"recipe": "auto", "model": "fashion-mnist", "lr": 1e-9, "chain": chain}
    full = complete(own)
    assert (full["lr"], full["chain"]["backward"]) == (1e-9, "random-2")
    assert full["iterations"] == recipe(12, 10**6, SCHEDULE)["iterations"]
    assert chain == {"steps": 12, "backward": "random-2"}


def test_another_sampler_has_its_own_order_and_a_list_its_own_spacing():
    own = {"recipe": "auto", "model": "fashion-mnist", "chain": {"sampler": "ddim"}}
    assert "order" not in complete(own)["chain"]
    own["chain"] = {"times": [900, 500, 100]}
    assert "spacing" not in complete(own)["chain"]
    assert complete(own)["chain"]["order"] == recipe(3, 10**6, SCHEDULE)["chain"]["order"]


@pytest.mark.parametrize("steps", [1, 2])
def test_so_few_steps_begin_where_the_image_is_just_white_noise(steps):
    times = recipe(steps, 10**6, SCHEDULE)["chain"]["times"]
    assert len(times) == steps
    assert SCHEDULE(times[0])[0] <= 0.04 < SCHEDULE(times[0] - 1)[0]
    own = {"recipe": "auto", "model": "fashion-mnist", "chain": {"steps": steps}}
    many = complete({**own, "budgets": [1, 2]})
    assert "times" not in many["chain"]
    assert (many["chain"]["backward"], many["iterations"]) == ("random-3", 300)
    own["chain"]["spacing"] = "trailing"
    assert "times" not in complete(own)["chain"]


@pytest.mark.parametrize("steps", [11, 20, 100])
def test_many_steps_end_where_a_little_noise_is_left(steps):
    times = recipe(steps, 10**6, SCHEDULE)["chain"]["times"]
    assert len({*times}) == steps
    assert SCHEDULE(times[-1] - 1)[1] < 0.17 <= SCHEDULE(times[-1])[1]
    assert times[0] == round(1000 - 500 / steps)  # as midpoint
    strides = [a - b for a, b in pairwise(times)]
    assert max(strides) - min(strides) <= 1


@pytest.mark.parametrize("steps", [3, 10])
def test_fewer_steps_end_there_by_themselves(steps):
    assert recipe(steps, 10**6, SCHEDULE)["chain"]["spacing"] == "midpoint"


def test_a_larger_network_gets_a_lower_rate():
    small, large = (recipe(5, weights, SCHEDULE)["lr"] for weights in (1_540_000, 36_000_000))
    assert large == pytest.approx(small * (1.54 / 36) ** 0.5, rel=0.02)


def test_the_papers_recipe_changes_nothing():
    for own in ({}, {"recipe": "paper", "model": "nowhere"}):
        assert complete(own) == own


def test_the_command_line_has_it(tmp_path):
    save_place(tmp_path, 12)
    asked = ("finetune", "base", "--data", "d", "--out", "o", "--steps", 9, "--dry-run")
    done = mmd_ddm(tmp_path, *asked, "--recipe", "auto", "--set", "iterations=7")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f'"backward": "{recipe(9, 10**6, SCHEDULE)["chain"]["backward"]}"' in said
    assert '"iterations": 7' in said
    assert '"backward": "all"' in " ".join(mmd_ddm(tmp_path, *asked).out.split())
    done = mmd_ddm(tmp_path, *asked, "--recipe", "best")
    assert (done.code, "recipe is paper or auto; got 'best'" in done.err) == (2, True)


@pytest.mark.parametrize("steps", [1, 2])
def test_one_and_two_steps_on_the_command_line(steps, tmp_path):
    asked = ("finetune", "fashion-mnist", "--data", "d", "--out", "o", "--dry-run")
    done = mmd_ddm(tmp_path, *asked, "--steps", steps, "--recipe", "auto")
    found = json.loads(done.out)
    assert found["budgets"] == []
    assert found["chain"]["times"] == recipe(steps, 10**6, SCHEDULE)["chain"]["times"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [("chain.times=abc", "chain.times"), ("chain.steps=abc", "chain.steps takes int"),
     ("chain=5", "chain. is a table")],
)  # fmt: skip
def test_wrong_settings_are_refused_as_without_it(setting, message, tmp_path):
    asked = ("finetune", "fashion-mnist", "--data", "d", "--out", "o", "--dry-run")
    for more in ((), ("--recipe", "auto")):
        done = mmd_ddm(tmp_path, *asked, "--set", setting, *more)
        assert done.code == 2
        assert message.replace(". is", " is") in done.err


def test_the_most_of_several_numbers_of_steps_decides():
    own = {"recipe": "auto", "model": "fashion-mnist", "chain": {"sampler": "unipc"}}
    found = complete(with_most_steps({**own, "budgets": [3, 12]}))
    assert found["chain"]["steps"] == 12
    assert found["lr"] == complete({**own, "chain": {"steps": 12}})["lr"]


def test_it_is_said_in_a_line():
    config = FinetuneConfig(iterations=60, batch_size=48, lr=1.5e-5, cosine=True)
    assert words(config) == (
        "ddim, gradient of all steps, 60 iterations of 48, rate 1.5e-05 on a cosine"
    )
