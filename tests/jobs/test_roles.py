"""One network has one role, in a run and to a run."""

import pytest
from commands import save_encoder

from mmd_ddm.config import FinetuneConfig
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.origin import Origin
from mmd_ddm.jobs.roles import check_distinct, roles_of, roles_to_runs
from mmd_ddm.settings import from_mapping

SPATIAL, LITE = "efficientnet-lite0-spatial", "efficientnet-lite0"


def spaces(*names):
    return {name: make_features(name, 1) for name in names}


def run_of(optimised, select="random", judges="encoder"):
    settings = {
        "objective": {"features": optimised}, "select": {"features": select}, "judges": [judges],
    }  # fmt: skip
    return Origin(from_mapping(FinetuneConfig, settings), {})


@pytest.mark.parametrize(
    ("spaces_of", "said"),
    [
        (([SPATIAL], "random", LITE), f"{SPATIAL} cannot be optimised and {LITE} held-out"),
        ((["pixels"], SPATIAL, LITE), f"{SPATIAL} cannot be selection and {LITE} held-out"),
        (([LITE], SPATIAL, "random"), f"{LITE} cannot be optimised and {SPATIAL} selection"),
    ],
    ids=["judge and optimised", "judge and selection", "selection and optimised"],
)
def test_one_network_in_two_roles_is_refused(spaces_of, said):
    roles = roles_of(run_of(*spaces_of).config)
    with pytest.raises(ValueError, match=f"{said}, for both read .*: choose another space for"):
        check_distinct(spaces(*roles), roles)


def test_two_optimised_spaces_may_share_their_network():
    roles = roles_of(run_of([SPATIAL, LITE]).config)
    check_distinct(spaces(*roles), roles)


def test_a_network_that_a_run_optimised_is_no_judge_of_it():
    phis = spaces(LITE, "random", "encoder", "pixels")
    runs = {"run": run_of([SPATIAL])}
    assert roles_to_runs(phis, runs, 1) == {
        LITE: "optimised", "random": "selection", "encoder": "held-out", "pixels": "held-out",
    }  # fmt: skip


def test_of_several_runs_the_worst_role_counts():
    phis = spaces("pixels", "random", "encoder")
    runs = {"one": run_of(["pixels"]), "two": run_of(["encoder"], judges="pixels")}
    roles = {"pixels": "optimised", "random": "selection", "encoder": "optimised"}
    assert roles_to_runs(phis, runs, 1) == roles
    assert roles_to_runs(phis, {**runs, "gone": None}, 1) == roles
    assert set(roles_to_runs(phis, {"gone": None}, 1).values()) == {"unknown"}
    assert set(roles_to_runs(phis, {}, 1).values()) == {"held-out"}


def test_an_optimised_space_that_is_gone_may_be_any_other(tmp_path):
    lost = f"encoder:{tmp_path / 'lost.safetensors'}"
    phis = spaces("pixels", "random", "encoder")
    roles = {"pixels": "unknown", "random": "selection", "encoder": "held-out"}
    assert roles_to_runs(phis, {"run": run_of([lost])}, 1) == roles
    save_encoder(tmp_path / "lost.safetensors", 0)
    assert roles_to_runs(phis, {"run": run_of([lost])}, 1)["pixels"] == "held-out"


def test_a_bundled_name_in_a_record_is_no_folder_of_that_name(tmp_path, monkeypatch):
    """The data may lie in such a folder, where the command ran."""
    (tmp_path / "there" / "fashion-mnist").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    origin = Origin(FinetuneConfig(), {}, tmp_path / "there")
    own = make_features("denoiser:fashion-mnist", 1)
    assert origin.features("denoiser:fashion-mnist", 1).sha256 == own.sha256
