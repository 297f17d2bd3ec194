"""Settings as options: one comment is the help of every field, values reach the config."""

import dataclasses
import json
import typing

import pytest
from commands import mmd_ddm, save_place

from mmd_ddm.config import FinetuneConfig, HeadConfig, PretrainConfig
from mmd_ddm.settings import comments


def fields(kind, prefix=""):
    """Every setting by its dotted name, those of tables in it as well."""
    for name, hint in typing.get_type_hints(kind).items():
        yield f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            yield from fields(hint, f"{prefix}{name}.")


@pytest.mark.parametrize("kind", [FinetuneConfig, PretrainConfig, HeadConfig])
def test_every_setting_has_a_comment(kind):
    found = comments(kind)
    assert [name for name in fields(kind) if len(found.get(name, "")) < 3] == []


def test_a_comment_is_the_help_of_its_option(tmp_path):
    text = " ".join(mmd_ddm(tmp_path, "finetune", "--help").out.replace("│", " ").split())
    for name in ("budgets", "objective.features", "lr", "heldout", "device"):
        said = comments(FinetuneConfig)[name]
        assert f"{said[0].upper()}{said[1:].rstrip('.')}." in text, name
    assert "[default: (denoiser)]" in text
    assert "[default: (5e-06)]" in text


def test_options_reach_the_config_and_outrank_the_file(tmp_path):
    (tmp_path / "my.toml").write_text('lr = 1e-3\niterations = 7\n[chain]\nsampler = "unipc"\n')
    done = mmd_ddm(
        tmp_path, "finetune", "base", "--data", "d", "--out", "o", "--config", "my.toml", "--lr",
        0.5, "--times", "900,30.5", "--features", "pixels", "--features", "encoder", "--resize",
        "--set", "iterations=8", "--dry-run",
    )  # fmt: skip
    assert done.code == 0, done.err
    for line in (
        '"model": "base"', '"lr": 0.5', '"iterations": 8', '"sampler": "unipc"', '"resize": true',
        '"pixels", "encoder"',
    ):  # fmt: skip
        assert line in " ".join(done.out.split()), line
    assert "900.0, 30.5" in " ".join(done.out.split())


def test_what_is_not_given_of_a_chain_stays_the_models_own(tmp_path):
    save_place(tmp_path, 12)
    done = mmd_ddm(tmp_path, "sample", "base", "-n", 1, "--out", "a", "--steps", 3, "--no-clip")
    assert "1 images in 3 ddim steps at 833, 500, 166 (a base model" in done.out
    done = mmd_ddm(tmp_path, "sample", "base", "-n", 1, "--out", "b", "--times", "90,ten")
    assert (done.code, "times are numbers with commas between" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--iterations", "1e1", "--lr", ".0001"), '"iterations": 10, "lr": 0.0001'),
        (("--iterations=1_0", "--steps", "4.0"), '"iterations": 10, "steps": 4'),
        (("--times", "[900, 3e1]"), '"times": [ 900.0, 30.0 ]'),
        (("--seed", "1E2"), '"seed": 100'),
    ],
    ids=str,
)
def test_numbers_of_options_may_be_written_as_people_do(words, said, tmp_path):
    done = mmd_ddm(tmp_path, "finetune", "base", "--data", "d", "--out", "o", *words, "--dry-run")
    assert done.code == 0, done.err
    out = " ".join(done.out.split())
    for part in said.split(', "'):
        assert part.strip('"') in out.replace('"', "") or part in out, part


@pytest.mark.parametrize(
    ("value", "budgets"),
    [
        ("3,8,5", [3, 5, 8]), ("1-4,6", [1, 2, 3, 4, 6]), ("2-3,1e1", [2, 3, 10]), ("7,7", []),
    ],
)  # fmt: skip
def test_several_numbers_of_steps_are_budgets_of_which_the_chain_has_the_most(
    value, budgets, tmp_path
):
    words = ("finetune", "base", "--data", "d", "--out", "o", "--steps", value, "--dry-run")
    done = mmd_ddm(tmp_path, *words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["budgets"] == budgets
    assert found["chain"]["steps"] == max(budgets, default=7)


def test_one_number_of_steps_outranks_the_several_of_a_file(tmp_path):
    (tmp_path / "my.toml").write_text("budgets = [3, 5]\n")
    words = ("finetune", "base", "--data", "d", "--out", "o", "--config", "my.toml", "--dry-run")
    for more, said in (((), '"budgets": [ 3, 5 ]'), (("--steps", 4), '"budgets": []')):
        done = mmd_ddm(tmp_path, *words, *more)
        assert said in " ".join(done.out.split()), done.err


@pytest.mark.parametrize("value", ["x", "3,x", "5-3", "1-", "1.5,3", "", "1-5000"])
def test_steps_that_are_no_whole_numbers_are_refused(value, tmp_path):
    words = ("finetune", "base", "--data", "d", "--out", "o", f"--steps={value}", "--dry-run")
    done = mmd_ddm(tmp_path, *words)
    assert done.code == 2
    assert "--steps takes whole numbers, 5,10,15,20 or 1-20; got" in " ".join(done.err.split())


@pytest.mark.parametrize("value", ["1.5", "1e-1", "ten", "1e999", "nan", ""])
def test_what_is_no_whole_number_is_refused_by_its_option(value, tmp_path):
    done = mmd_ddm(tmp_path, "sample", "base", "-n", value, "--out", "o")
    assert done.code == 2
    assert f"{value!r} is not a valid integer" in " ".join(done.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []
