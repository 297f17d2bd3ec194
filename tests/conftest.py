"""Fixtures of the whole suite: one tiny seeded network, and the denoiser around it."""

import functools
import os
import shutil
import tempfile

# Before diffusers is imported: a test that asks the network for something must fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Nothing is remembered from an earlier run, nor for the person who runs the tests.
os.environ["MMD_DDM_CACHE"] = tempfile.mkdtemp(prefix="mmd-ddm-tests-")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.protocol import Denoiser

torch.set_num_threads(1)

MakeUnet = Callable[..., UNet2DModel]


def pytest_sessionfinish() -> None:
    shutil.rmtree(os.environ["MMD_DDM_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_unet() -> MakeUnet:
    """``tiny_unet(in_channels=1, size=8, seed=0, **config)``: a network of 40 thousand weights."""

    def make(in_channels: int = 1, size: int = 8, seed: int = 0, **config) -> UNet2DModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            settings = {
                "sample_size": size,
                "in_channels": in_channels,
                "out_channels": in_channels,
                "block_out_channels": (8, 16),
                "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
                "norm_num_groups": 4,
                "layers_per_block": 1,
            }
            return UNet2DModel(**{**settings, **config}).eval()

    return make


@pytest.fixture(scope="session")
def schedule() -> NoiseSchedule:
    return NoiseSchedule.linear()


@pytest.fixture
def denoiser(tiny_unet: MakeUnet, schedule: NoiseSchedule) -> Denoiser:
    """Grey 8 x 8 images, float32; a fresh copy for each test."""
    return UNet2D(tiny_unet(), schedule, shape=(1, 8, 8))


@pytest.fixture
def denoiser64(tiny_unet: MakeUnet, schedule: NoiseSchedule) -> Denoiser:
    """The same in float64, for comparisons to the last digit and finite differences."""
    return UNet2D(tiny_unet().double(), schedule, shape=(1, 8, 8))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: 60 images, a base model, a space to judge in, a cache of its own."""
    from commands import save_place  # only here, for it imports every verb

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    save_place(tmp_path, 60)
    return tmp_path


@pytest.fixture
def small_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flux draws images of 32 pixels, which no config says."""
    from diffusers import FluxPipeline

    made = FluxPipeline.__init__

    @functools.wraps(made)
    def small(self, *args, **parts) -> None:
        made(self, *args, **parts)
        self.default_sample_size = 16

    monkeypatch.setattr(FluxPipeline, "__init__", small)
