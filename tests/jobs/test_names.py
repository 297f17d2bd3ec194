"""A run goes on with the same content whatever it is called, and with nothing else."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import digits, mmd_ddm, read, save_encoder, save_model, save_place
from PIL import Image

from mmd_ddm.config import (
    ChainConfig,
    FinetuneConfig,
    HeadConfig,
    NetworkConfig,
    ObjectiveConfig,
    PretrainConfig,
    SelectConfig,
)
from mmd_ddm.jobs.copies import find_copies
from mmd_ddm.jobs.finetune import run
from mmd_ddm.jobs.genie_head import distil_head
from mmd_ddm.jobs.origin import Origin
from mmd_ddm.jobs.pretrain import pretrain
from mmd_ddm.runs.folder import read_events

JUDGE = "encoder:judge.safetensors"
NAMED = ("digits.npy", "held.npy", "judge.safetensors", "base")
TINY = NetworkConfig((8, 16), (False, True), attention_head_dim=8, norm_num_groups=4)


def configured(**changes):
    return FinetuneConfig(**{
        "model": "base", "data": "digits.npy", "heldout": "held.npy", "chain": ChainConfig(3),
        "judges": (JUDGE,), "select": SelectConfig(every=0), "iterations": 0,
        "judge_samples": 4, "compare_steps": (), **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, and what it names also elsewhere, under other names."""
    folder = tmp_path_factory.mktemp("made")
    with contextlib.chdir(folder):
        save_place(folder, 60)
        np.save("held.npy", digits(72)[60:])
        elsewhere = Path("elsewhere")
        elsewhere.mkdir()
        for name in NAMED:
            copy = shutil.copytree if Path(name).is_dir() else shutil.copy
            copy(name, elsewhere / f"my {name}")
        run(configured(), Path("run"))
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy to work in."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def respelled(spelled):
    """The settings that name something, each said in another way."""
    said = {"model": "base", "data": "digits.npy", "heldout": "held.npy"}
    space = f"encoder:{spelled('judge.safetensors')}"
    return configured(
        **{key: spelled(name) for key, name in said.items()},
        objective=ObjectiveConfig((f"denoiser:{spelled('base')}",)), judges=(space,), device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize(
    "spelled",
    [
        lambda name: f"./{name}" + "/" * Path(name).is_dir(),
        lambda name: str(Path(name).absolute()),
        lambda name: f"elsewhere/my {name}",
    ],
    ids=["relative", "absolute", "copied"],
)
def test_a_finetuning_goes_on_with_what_is_called_otherwise(spelled, place, monkeypatch):
    run(respelled(spelled), Path("run"))
    done = [event for event in read_events(place / "run") if event["event"] == "done"]
    assert len({(event["weights_sha256"], event["samples_sha256"]) for event in done}) == 1
    assert len(done) == 2
    # Its record names them as they were named last, from where they were named.
    monkeypatch.chdir("elsewhere")
    origin = Origin.read(place / "run")
    assert origin.data((1, 8, 8)).hashes.items() <= dict(origin.inputs).items()


def test_a_moved_folder_of_pictures_is_the_same_data(place):
    Path("photos").mkdir()
    for i, image in enumerate(digits(20)):
        Image.fromarray(image).save(f"photos/{i}.png")
    settings = "iterations = 0\njudge_samples = 4\ncompare_steps = []\nselect.every = 0\n"
    for data in ("photos", "renamed"):
        Path(f"{data}.toml").write_text(settings + f"judges = ['{JUDGE}']")
        words = (
            "base",
            "--data",
            data,
            "--features",
            "pixels",
            "--config",
            f"{data}.toml",
            "--out",
            "new",
        )
        done = mmd_ddm(place, "finetune", *words)
        assert done.code == 0, done.err
        if data == "photos":
            Path("photos").rename("renamed")


def change_data():
    np.save("digits.npy", np.load("digits.npy") ^ 1)


def change_betas():
    """The same weights walked by another schedule are another model."""
    path = Path("base/scheduler/scheduler_config.json")
    path.write_text(json.dumps({**read(path), "beta_end": 0.03}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_data, "data_sha256: "),
        (lambda: save_model(Path("base"), channels=1, prediction="sample"), "model_sha256: "),
        (change_betas, "model_sha256: "),
        (lambda: save_encoder(Path("judge.safetensors"), 7), "judges_sha256: "),
    ],
    ids=["data", "prediction", "betas", "judge"],
)
def test_what_has_changed_under_its_name_is_refused(change, said, place):
    before = (place / "run/run.json").read_bytes()
    change()
    with pytest.raises(ValueError, match=r"began with other data or weights .* not the same") as e:
        run(configured(), Path("run"))
    assert said in str(e.value)
    assert (place / "run/run.json").read_bytes() == before


def test_another_name_of_other_content_is_refused_with_both(place):
    np.save("other.npy", np.load("digits.npy")[::-1])
    with pytest.raises(ValueError, match=r"data: 'digits.npy' -> 'other.npy'; data_sha256: "):
        run(configured(data="other.npy"), Path("run"))
    with pytest.raises(ValueError, match=r"other settings \(judges: .* -> \['random'\]\)"):
        run(configured(judges=("random",)), Path("run"))


@pytest.mark.slow
def test_other_verbs_go_on_as_well(place):
    absolute = str(Path("digits.npy").absolute())
    for data, device in (("digits.npy", "auto"), (absolute, "cpu")):
        config = PretrainConfig(data=data, device=device, iterations=1, network=TINY)
        pretrain(config, Path("own"))
        distil_head("base", HeadConfig(data=data, device=device, iterations=1, batch_size=2))
        done = mmd_ddm(place, "gamma", "base", "--data", data, "-n", 1)
        assert done.code == 0, done.err
        bench = ("base", "--data", data, "--steps", 3, "-n", 4, "--samplers", "ddim")
        done = mmd_ddm(place, "bench", *bench, "--features", JUDGE, "--out", "bench")
        assert done.code == 0, done.err
        done = mmd_ddm(place, "sample", Path("base").absolute(), "--start-from", data, "-n", 2,
                       "--times", "200,0", "--out", "drawn")  # fmt: skip
        assert done.code == 0, done.err
    for data in ("digits.npy", absolute):
        find_copies("run", data=data, space="pixels", n=2)
    with pytest.raises(ValueError, match=r"neighbors holds a run with other settings \(space"):
        find_copies("run", space="random", n=2)


def test_a_bench_of_another_model_does_not_take_the_place_of_the_first(place):
    bench = ("--data", "digits.npy", "--steps", 3, "-n", 4, "--samplers", "ddim", "--out", "bench")
    assert mmd_ddm(place, "bench", "base", *bench, "--features", JUDGE).code == 0
    save_model(place / "other", prediction="sample")
    done = mmd_ddm(place, "bench", "other", *bench, "--features", JUDGE)
    assert done.code == 2
    assert "began with other data or weights (model: 'base' -> 'other'; model_sha256" in done.err
