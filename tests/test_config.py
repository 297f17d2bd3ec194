"""Settings: defaults, a TOML file over them, overrides over both, and what is refused."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from mmd_ddm.config import (
    ChainConfig,
    FinetuneConfig,
    NetworkConfig,
    ObjectiveConfig,
    PretrainConfig,
    SelectConfig,
)
from mmd_ddm.settings import from_mapping, load, to_mapping

ROOT = Path(__file__).parents[1]
KINDS = [
    ChainConfig, FinetuneConfig, NetworkConfig, ObjectiveConfig, PretrainConfig, SelectConfig,
]  # fmt: skip


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def toml(tmp_path):
    return write(
        tmp_path / "my.toml",
        'model = "base"\nlr = 1\nseed = 3\n[chain]\nsteps = 7\ntimes = [9, 5.5, 0]\n',
    )


# The model's own space


def test_the_models_own_space_is_named_in_full():
    config = load(FinetuneConfig, None, ["model=base", "judges=denoiser,pixels"])
    assert config.objective.features == ("denoiser:base",)
    assert config.judges == ("denoiser:base", "pixels")
    other = load(FinetuneConfig, None, ["model=base", "objective.features=denoiser:other"])
    assert other.objective.features == ("denoiser:other",)
    assert from_mapping(FinetuneConfig, to_mapping(config)) == config


# Several numbers of steps


@pytest.mark.parametrize(
    ("settings", "budgets"),
    [
        ({}, ()),
        ({"budgets": [8, 3, 5, 3]}, (3, 5, 8)),
        ({"budgets": [5]}, ()),  # which is chain.steps
        ({"budgets": [5], "chain": {"times": [900, 30]}}, ()),
    ],
)
def test_budgets_rise_and_are_several(settings, budgets):
    config = from_mapping(FinetuneConfig, settings)
    assert config.budgets == budgets
    assert from_mapping(FinetuneConfig, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budgets": [3, 8]}, r"chain.steps = 5 is not among the budgets 3, 8; set it"),
        ({"budgets": [7]}, r"chain.steps = 5 is not among the budgets 7"),
        ({"budgets": [0, 5]}, r"budgets are at least 1 step; got 0, 5"),
        (
            {"budgets": [2, 5], "chain": {"times": [900, 30]}},
            r"cannot serve the budgets 2, 5",
        ),
        ({"budgets": [3, 5], "trained": "times"}, r"trained = times .* one chain, not .* 3, 5;"),
        (
            {"budgets": [3, 5], "trained": "all+sampler"},
            r"trained = all\+sampler .* weights",
        ),
    ],
)
def test_budgets_that_one_model_cannot_serve_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        from_mapping(FinetuneConfig, settings)


# Reading


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(toml):
    config = load(FinetuneConfig, toml, ["chain.steps=10", "seed=4", "select.every=25"])
    assert config == FinetuneConfig(
        model="base", lr=1.0, seed=4, chain=ChainConfig(steps=10, times=(9.0, 5.5, 0.0)),
        select=SelectConfig(every=25),
    )  # fmt: skip
    assert isinstance(config.lr, float)
    assert load(FinetuneConfig) == FinetuneConfig()


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("lr=1e-5", "lr", 1e-5),
        ("lr=2", "lr", 2.0),
        ("resize=true", "resize", True),
        ("model=some/where", "model", "some/where"),
        ('model="true"', "model", "true"),
        ("model=", "model", ""),
        ("data=a=b.zip", "data", "a=b.zip"),
        (" seed = 5 ", "seed", 5),
        ("judges=pixels,random", "judges", ("pixels", "random")),
        ("judges=pixels", "judges", ("pixels",)),
        ('judges=["pixels", "random"]', "judges", ("pixels", "random")),
        ("judges=[]", "judges", ()),
        ("compare_steps=10,50", "compare_steps", (10, 50)),
        ("chain.times=999,640.5,0", "chain.times", (999.0, 640.5, 0.0)),
        ("objective.features=encoder:my.safetensors", "objective.features",
         ("encoder:my.safetensors",)),
        ("objective.weights=1,0.5", "objective.weights", (1.0, 0.5)),
        ("lr=.0001", "lr", 1e-4),
        ("lr=1.", "lr", 1.0),
        ("lr=1E-4", "lr", 1e-4),
        ("iterations=1e3", "iterations", 1000),
        ("iterations=1.5E3", "iterations", 1500),
        ("iterations=1_000", "iterations", 1000),
        ("iterations=1000.0", "iterations", 1000),
        ("cosine=True", "cosine", True),
        ("cosine=FALSE", "cosine", False),
        ("chain.clip=none", "chain.clip", None),
        ("chain.clip=null", "chain.clip", None),
        ("chain.clip=None", "chain.clip", None),
        ("chain.clip=False", "chain.clip", False),
        ("compare_steps=[5, 10]", "compare_steps", (5, 10)),
        ("compare_steps=1e1,20", "compare_steps", (10, 20)),
        ("judges=[pixels, random]", "judges", ("pixels", "random")),
        ("chain.times=[.5, 1e-1]", "chain.times", (0.5, 0.1)),
        ("model=True", "model", "True"),
        ("model=none", "model", "none"),
    ],
)  # fmt: skip
def test_an_override_is_what_a_person_means(override, where, value):
    found = load(FinetuneConfig, None, [override])
    for key in where.split("."):
        found = getattr(found, key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_survive_being_written_down(kind):
    config = kind()
    assert from_mapping(kind, json.loads(json.dumps(to_mapping(config)))) == config


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_frozen(kind):
    config = kind()
    name = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, None)


# Refusing


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("leraning_rate=1", "unknown setting leraning_rate; known: resize, background,"),
        ("iteration=1", "unknown setting iteration; did you mean iterations?"),
        ("chain.step=1", "unknown setting chain.step; did you mean chain.steps?"),
        ("lr=fast", "lr takes float; got 'fast'"),
        ("seed=1.5", "seed takes int; got 1.5"),
        ("seed=true", "seed takes int; got True"),
        ("resize=1", "resize takes bool; got 1"),
        ("lr=true", "lr takes float; got True"),
        ("model=3", "model takes str; got 3"),
        ("chain=3", "chain is a table of settings; got 3"),
        ("lr.low=3", "lr takes float; got {'low': 3}"),
        ("iterations=1.5", "iterations takes int; got 1.5"),
        ("iterations=1e-3", "iterations takes int; got 0.001"),
        ("iterations=ten", "iterations takes int; got 'ten'"),
        ("iterations=inf", "iterations takes int; got inf"),
        ("cosine=yes", "cosine takes bool; got 'yes'"),
        ("lr=none", "lr takes float; got 'none'"),
        ("lr=.0001x", "lr takes float; got '.0001x'"),
        ("compare_steps=[5, x]", "compare_steps takes int; got 'x'"),
        ("chain.times=9,b", "chain.times takes float; got 'b'"),
        ("seed", "an override is written key=value; got 'seed'"),
        ("batch_size=1", "batch_size must be at least 2; got 1"),
        ("iterations=-1", "iterations must be at least 0; got -1"),
        ("save_every=0", "save_every must be at least 1; got 0"),
        ("micro_batch=-2", "micro_batch must be at least 0; got -2"),
        ("lr=nan", "lr must be finite; got nan"),
        ("chain.times=9,inf", "chain.times must be finite; got inf"),
        ("keep=0", "keep must be at least 1; got 0"),
        ("grad_clip=-1", "grad_clip must be at least 0; got -1"),
        ("select.diverged=-1", "select.diverged must be at least 0; got -1"),
        ("ema_decay=1", "ema_decay must be less than 1; got 1"),
        ("select.samples=1", "select.samples must be at least 2; got 1"),
        ("objective.features=[]", "objective.features is empty"),
        ("objective.clamp=soft", "objective.clamp is straight-through or hard; got 'soft'"),
    ],
)
def test_a_bad_override_is_one_line_that_names_it(override, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load(FinetuneConfig, None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["iterations=0", "batch_size=0", "save_every=0", "warmup=-1"])
def test_pretraining_refuses_too(override):
    with pytest.raises(ValueError, match=override.partition("=")[0]):
        load(PretrainConfig, None, [override])


def test_a_key_below_a_plain_value_is_refused(toml):
    with pytest.raises(ValueError, match=r"lr\.low: lr is not a table"):
        load(FinetuneConfig, toml, ["lr.low=3"])


@pytest.mark.parametrize("content", [None, "lr = ", "\xff"])
def test_a_bad_file_is_named(content, tmp_path):
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"cannot read the config .*my\.toml"):
        load(FinetuneConfig, path)


# What ships


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_read_somewhere(kind):
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src").rglob("*.py")
        if path.name != "config.py"
    )
    unread = [f.name for f in dataclasses.fields(kind) if not re.search(rf"\.{f.name}\b", code)]
    assert not unread


FILES = [
    ROOT / "src/mmd_ddm/presets/demo.toml",  # tests/jobs/test_shootout.py reads the other
    *sorted((ROOT / "recipes").rglob("*.toml")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_ships_is_read(path):
    kind = PretrainConfig if path.name in ("base.toml", "short.toml") else FinetuneConfig
    assert load(kind, path) != kind()
    command = re.findall(r"mmd-ddm (\w+)", path.read_text(encoding="utf-8"))
    assert not command or command[0] == ("pretrain" if kind is PretrainConfig else "finetune")
