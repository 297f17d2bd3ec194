"""Model cards: what a hub reads, what a person needs, nothing private; and the way to the hub."""

import json

import huggingface_hub
import pytest
from commands import mmd_ddm
from huggingface_hub import ModelCard
from run_folders import make_results, make_run

from mmd_ddm.models.find import check_upload, upload
from mmd_ddm.report import write_base_card, write_card


def make_card(folder, results=None, **settings):
    """The card of a made-up run with these settings."""
    run = make_run(folder, results)
    about = json.loads((run / "run.json").read_text())
    about["settings"] |= settings
    (run / "run.json").write_text(json.dumps(about))
    write_card(run)
    return ModelCard.load(run / "model" / "README.md")


def test_a_card_has_what_a_reader_needs(tmp_path):
    card = make_card(tmp_path / "run", model="google/ddpm-cifar10-32", data="cifar10:sets/c.zip")
    assert card.data.library_name == "diffusers"
    assert card.data.base_model == "google/ddpm-cifar10-32"
    assert card.data.datasets == ["uoft-cs/cifar10"]
    assert card.data.license is None
    assert {"few-step", "mmd-ddm"} <= set(card.data.tags)
    for phrase in (
        "# google/ddpm-cifar10-32 in 5 steps",
        "**Real gain: held-out lite0 improves (KID x1000 3272 ± 30 to 1120 ± 20, gain 2152 ± 36,",
        "| lite0 | held-out | KID x1000 | 3272 ± 30 | **1120 ± 20** |",
        "| real vs real |",
        "| data | cifar10:c.zip |",
        "ddim, eta 0, times 800, 600, 400, 200, 0",
        "from_pretrained('.')",
        "num_inference_steps=5",
        "## Limits",
        "## Broader impact",
    ):
        assert phrase in card.text, phrase
    assert (tmp_path / "run/model/pairs.png").read_bytes() == (
        tmp_path / "run/pairs.png"
    ).read_bytes()


def test_the_bundled_model_says_its_licence(tmp_path):
    card = make_card(tmp_path / "run", model="fashion-mnist", data="fashion-mnist")
    assert card.data.license == "mit"
    assert card.data.datasets == ["zalando-datasets/fashion_mnist"]
    assert card.data.base_model is None


def test_a_card_names_no_folder_of_the_machine(tmp_path):
    space = "encoder:/home/ann/encoder.safetensors"
    text = make_card(
        tmp_path / "run",
        model="/home/ann/base", data="/home/ann/photos", objective={"features": [space]},
    ).content  # fmt: skip
    assert "ann" not in text.replace("channel", "")
    assert "encoder:encoder.safetensors" in text
    assert str(tmp_path) not in text


def test_a_gamed_run_says_so(tmp_path):
    card = make_card(tmp_path / "run", make_results(lite0=(3.9, 0.02)))
    assert "**Gamed:" in card.text


def test_names_are_not_markup(tmp_path):
    card = make_card(tmp_path / "run", data="<img src=x>|[a](b)`\nlicense: gpl")
    assert "&lt;img src=x&gt;\\|[a]\\(b)\\` license: gpl |" in card.text
    assert card.data.license is None


def test_a_base_model_has_a_card_as_well(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    write_base_card(tmp_path, "Base", {"data": "/a/photos", "lr": 1e-3}, "celeba-heldout")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.datasets == ["flwrlabs/celeba"]
    assert "few-step" not in card.data.tags
    assert "| data | photos |" in card.text
    assert "## Broader impact" in card.text


class FakeHub:
    """Notes what it is asked."""

    calls = ()
    broken = False

    def create_repo(self, repo, **options):
        FakeHub.calls += (("create", repo, options),)

    def upload_folder(self, **options):
        FakeHub.calls += (("upload", options["repo_id"], options["folder_path"]),)
        if FakeHub.broken:
            raise RuntimeError("the line\nwent dead")


def test_upload(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", ())
    check_upload("ann/model")
    assert upload(tmp_path, "ann/model") == "https://huggingface.co/ann/model"
    assert FakeHub.calls == (
        ("create", "ann/model", {"private": True, "exist_ok": True}),
        ("upload", "ann/model", tmp_path),
    )
    monkeypatch.setattr(FakeHub, "broken", True)
    with pytest.raises(ValueError, match=r"hf upload ann/model .*: the line went dead"):
        upload(tmp_path, "ann/model")


def test_offline_ends_in_one_line_before_anything_is_done(tmp_path):
    done = mmd_ddm(
        tmp_path,
        "finetune", "fashion-mnist", "--data", "fashion-mnist", "--out", "run",
        "--push-to-hub", "ann/model",
    )  # fmt: skip
    assert done.code == 2
    assert done.err.startswith("mmd-ddm: error: cannot write ann/model on the hub (offline?")
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
