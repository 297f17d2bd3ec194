"""Generated bad inputs: each is refused in one line, or handled as docs/reliability.md says.

Some 600 of them: settings, command lines, models, checkpoints. No traceback, and nothing is
written where nothing was asked for. The examples are the same in every run.
"""

import json
import shutil

import pytest
import torch
from commands import contents, mmd_ddm, save_place
from fuzzing import PLACES, attempt, many, spoilt
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import nn

from mmd_ddm.config import FinetuneConfig, PretrainConfig
from mmd_ddm.features.registry import FEATURES
from mmd_ddm.jobs.build import load_model
from mmd_ddm.maths.kernels import KERNELS, make_kernel
from mmd_ddm.maths.times import SCHEDULE_SPACINGS, SPACINGS, check_times, select_times
from mmd_ddm.samplers.registry import SAMPLERS
from mmd_ddm.settings import load, to_mapping
from mmd_ddm.training.state import TrainingState

CONFIG = PretrainConfig(lr=0.1)
NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(-3, 3))
VALUES = st.one_of(
    NUMBERS, st.text(max_size=20), st.booleans(), st.lists(NUMBERS, max_size=3), st.just("[")
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def keys(kind):
    for key, value in to_mapping(kind()).items():
        yield from (f"{key}.{inner}" for inner in value) if isinstance(value, dict) else (key,)


KEYS = [(kind, key) for kind in (FinetuneConfig, PretrainConfig) for key in keys(kind)]


# Settings


@many(200)
@given(st.sampled_from(KEYS) | st.tuples(st.just(FinetuneConfig), TEXT), VALUES)
def test_settings_are_taken_or_refused(setting, value):
    kind, key = setting
    config = attempt(lambda: load(kind, None, [f"{key}={value}"]))
    if config is not None:
        assert json.loads(json.dumps(to_mapping(config), allow_nan=False))


@many(100)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_config_files_are_taken_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    attempt(lambda: load(FinetuneConfig, path))


# The command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    save_place(folder, 20)
    return folder


COMMANDS = {
    "sample": {"MODEL": "base", "--out": "new", "-n": 2},
    "evaluate": {"MODEL": "base", "--data": "digits.npy", "--out": "new", "--features": "pixels"},
    "finetune": {"MODEL": "base", "--data": "digits.npy", "--out": "new", "--features": "pixels"},
    "bench": {"MODEL": "base", "--data": "digits.npy", "--out": "new", "--features": "pixels"},
    "pretrain": {"--data": "digits.npy", "--out": "new"},
    "report": {"RUN": "base", "--out": "new"},
    "verify": {"RUN": "base"},
}
NOT_POSITIVE = st.integers(max_value=0)
NO_NUMBER = st.sampled_from(["nan", "inf", "-inf", "x", "", "1e", "--", "5,", ",", "1;2"])
BAD = {
    "MODEL": TEXT, "RUN": TEXT, "--data": TEXT, "--features": TEXT, "--device": TEXT,
    "--sampler": TEXT, "--spacing": TEXT, "--kernel": TEXT, "--reference": TEXT, "--config": TEXT,
    "--set": TEXT, "--samplers": TEXT, "--times": NO_NUMBER | st.sampled_from(["5,5", "1,2"]),
    "--steps": NOT_POSITIVE | st.integers(1001) | NO_NUMBER,
    "--seed": st.integers(max_value=-1) | st.integers(2**62) | NO_NUMBER,
    "-n": NOT_POSITIVE | NO_NUMBER,
    "--iterations": st.integers(max_value=-1) | NO_NUMBER,
    "--lr": st.floats(max_value=-1e-9) | NO_NUMBER,
}  # fmt: skip
OPTIONS = {
    "sample": ["MODEL", "-n", "--steps", "--times", "--sampler", "--spacing", "--seed"],
    "evaluate": ["MODEL", "--data", "--features", "--steps", "--times", "--sampler", "--seed"],
    "finetune": ["MODEL", "--data", "--features", "--config", "--set", "--kernel", "--reference",
                 "--steps", "--times", "--sampler", "--spacing", "--seed", "--lr", "--iterations"],
    "bench": ["MODEL", "--data", "--features", "--steps", "--samplers", "--spacing"],
    "pretrain": ["--data", "--config", "--set", "--seed", "--lr", "--iterations", "--device"],
    "report": ["RUN"],
    "verify": ["RUN", "--device"],
}  # fmt: skip
GOOD = {
    "auto", "cpu", "base", ".", "all", "bank", "minibatch",
    *SAMPLERS, *SPACINGS, *SCHEDULE_SPACINGS, *KERNELS, *FEATURES,
}  # fmt: skip
SLIPS = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda verb: st.sampled_from(OPTIONS[verb]).flatmap(
        lambda option: st.tuples(st.just(verb), st.just(option), BAD[option])
    )
)


@pytest.mark.slow
@many(120)
@given(slip=SLIPS)
@example(slip=("sample", "MODEL", "[/x]"))
def test_a_slip_on_the_command_line_is_refused(slip, folder):
    verb, option, value = slip
    good = {**COMMANDS[verb], option: value}
    # Hypothesis tries the words that it finds in the source: names that exist, a list's comma.
    words = {word.strip() for word in str(value).split(",")} - {""}
    assume(not words or not words <= {*GOOD, "5", "10"})
    words = [word for key, word in good.items() if key.isupper()]
    words += [word for key, item in good.items() if not key.isupper() for word in (key, item)]
    before = contents(folder)
    done = mmd_ddm(folder, verb, *words)
    assert done.code == 2, (words, done)
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 1 or done.err.startswith("Usage: "), done.err
    assert contents(folder) == before


# Models and checkpoints


@pytest.mark.slow
@many(60)
@given(
    st.sampled_from(["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]),
    st.randoms(use_true_random=False),
    st.one_of(st.integers(-2, 3), st.text(max_size=5), st.none(), st.booleans(), st.just([1, 2])),
)
def test_spoilt_models_are_loaded_or_refused(folder, tmp_path_factory, file, random, value):
    model = tmp_path_factory.getbasetemp() / "spoilt-model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(folder / "base", model)
    config = json.loads((model / file).read_text())
    config[random.choice(sorted(config))] = value
    (model / file).write_text(json.dumps(config))
    attempt(lambda: load_model(str(model)))


@many(100)
@given(PLACES, st.one_of(st.just(0), st.integers(0, 2**20)))
def test_spoilt_checkpoints_are_loaded_or_refused(tmp_path_factory, changes, cut):
    path = tmp_path_factory.getbasetemp() / "fuzz-checkpoint.pt"
    path.unlink(missing_ok=True)
    TrainingState(CONFIG, nn.Linear(3, 1), path).save()
    content = spoilt(path.read_bytes(), changes, cut)
    path.write_bytes(content)
    attempt(lambda: TrainingState(CONFIG, nn.Linear(3, 1), path), "fuzz-checkpoint.pt")
    assert path.read_bytes() == content


# What holds for every input that is taken


@many(100)
@given(st.sampled_from(sorted(SPACINGS)), st.integers(-2, 60), st.integers(2, 60))
def test_every_spacing_gives_exactly_k_falling_times(spacing, steps, num_train_timesteps):
    times = attempt(lambda: select_times(spacing, steps, num_train_timesteps))
    if times is None:
        return
    assert len(times) == steps
    assert list(times) == sorted(set(times), reverse=True)
    assert 0 <= times[-1]
    assert times[0] <= num_train_timesteps - 1


@many(100)
@given(st.lists(st.floats(-5, 1005) | st.integers(0, 999) | st.just(float("nan")), max_size=5))
def test_lists_of_times_are_falling_or_refused(times):
    checked = attempt(lambda: check_times(times, 1000))
    if checked is None:
        return
    assert list(checked) == sorted(set(times), reverse=True) == list(times)
    assert 0 <= checked[-1]
    assert checked[0] <= 999


@many(60)
@given(
    st.sampled_from(sorted(KERNELS)), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31),
    st.sampled_from([1e-3, 1.0, 30.0]),
)  # fmt: skip
def test_every_kernel_is_symmetric_and_positive(name, n, d, seed, scale):
    x = scale * torch.randn((n, d), generator=torch.Generator().manual_seed(seed)).double()
    gram = make_kernel(name)(x, x)
    assert torch.allclose(gram, gram.T, rtol=1e-9)
    assert torch.linalg.eigvalsh(gram)[0] > -1e-9 * (1 + gram.abs().max())
