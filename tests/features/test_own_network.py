"""The denoiser's own space at noise times that are named."""

import pytest
import torch

from mmd_ddm.config import FinetuneConfig, ObjectiveConfig
from mmd_ddm.features.base import pool_levels
from mmd_ddm.features.kinship import shared_network
from mmd_ddm.features.own_network import contracting_half
from mmd_ddm.features.registry import make_features, make_recorded
from mmd_ddm.models.export import export


@pytest.fixture
def base(denoiser, tmp_path):
    export(denoiser, {"num_train_timesteps": 1000}, None, tmp_path / "base")
    return tmp_path / "base"


def test_a_denoiser_is_read_at_the_times_that_are_named(denoiser, base):
    phi, x = make_features(f"denoiser:{base}@20+300", 1), torch.rand((2, 1, 8, 8)) * 2 - 1
    z = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    expected = []
    for t in (20, 300):
        alpha, sigma = denoiser.schedule(t)
        expected.append(pool_levels(contracting_half(denoiser, alpha * x + sigma * z, float(t))))
    assert torch.allclose(phi(x), torch.cat(expected, 1), rtol=1e-6)
    assert phi(x).shape == (2, phi.dim)


def test_the_times_of_a_denoiser_name_another_space_of_one_network(base):
    spaces = {
        name: make_features(f"denoiser:{base}{name}", 1)
        for name in ("", "@50", "@20", "@20+300", "@300+20", "@20+300+uint8")
    }
    assert spaces[""].sha256 == spaces["@50"].sha256  # T/20
    assert spaces["@20+300"].sha256 == spaces["@20+300+uint8"].sha256
    assert len({phi.sha256 for phi in spaces.values()}) == 4
    for phi in spaces.values():
        assert shared_network(spaces["@20"], phi) != ""
    assert shared_network(spaces["@20"], make_features("encoder", 1)) == ""


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ("@1000", "has no noise time 1000: choose from 0 to 999"),
        ("@20+1.2.3", "times are numbers joined by [+], as @50[+]200; got @20[+]1.2.3"),
        ("@20,300", "no model"),
    ],
)
def test_a_time_that_is_none_is_refused(base, times, said):
    with pytest.raises(ValueError, match=said):
        make_features(f"denoiser:{base}{times}", 1)


def test_a_record_says_where_the_model_lay_without_its_times(base):
    asked = []

    def place(name):
        asked.append(name)
        return str(base)

    phi = make_recorded("denoiser:runs/base@20+300", 1, place)
    assert asked == ["runs/base"]
    assert phi.sha256 == make_features(f"denoiser:{base}@20+300", 1).sha256


def test_the_own_denoiser_takes_times_as_well():
    objective = ObjectiveConfig(("denoiser", "denoiser@50+200", "encoder"))
    config = FinetuneConfig(model="runs/base", objective=objective, judges=("denoiser2",))
    own = "denoiser:runs/base"
    assert config.objective.features == (own, f"{own}@50+200", "encoder")
    assert config.judges == ("denoiser2",)
