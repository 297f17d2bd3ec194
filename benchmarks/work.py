"""The work that is measured: a model, its chain and its objective, as finetuning has them."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmd_ddm.config import ChainConfig, NetworkConfig
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import (
    build_device,
    build_network,
    build_sampler,
    load_model,
    precision_dtype,
)
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.objective import Objective

__all__ = ["Work", "options", "prepare"]

RESULTS = Path(__file__).parent / "results"
# The paper's network for CIFAR-10, google/ddpm-cifar10-32, here with random weights.
CIFAR10 = NetworkConfig(
    channels=(128, 256, 256, 256),
    attention=(False, True, False, False),
    layers_per_block=2,
    attention_head_dim=256,
    norm_num_groups=32,
)


@dataclass(frozen=True)
class Work:
    """One iteration's work, ready to be timed."""

    sampler: Sampler
    objective: Objective
    x_T: Tensor
    noise: Tensor | None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sampler.denoiser.device


def options(doc: str, **defaults: object) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    chosen = {
        "model": "fashion-mnist", "features": "encoder", "sampler": "ddim", "steps": 5,
        "batch_size": 64, "bank": 7000, "precision": "float32", "device": "cpu", "threads": 1,
        "repeats": 5, "out": RESULTS, **defaults,
    }  # fmt: skip
    for name, value in chosen.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser


def prepare(settings: argparse.Namespace, **changes: object) -> Work:
    """Load what the settings name; the bank is random numbers, which cost what features cost.

    The model ``cifar10-shape`` is `CIFAR10`.
    """
    chosen = argparse.Namespace(**{**vars(settings), **changes})
    torch.set_num_threads(chosen.threads)
    device = build_device(chosen.device)
    if chosen.model == "cifar10-shape":
        shape, autocast = (3, 32, 32), precision_dtype(chosen.precision)
        network = build_network(CIFAR10, shape).to(device)
        denoiser = UNet2D(network, NoiseSchedule.linear(), shape=shape, autocast=autocast)
    else:
        denoiser = load_model(chosen.model, device, chosen.precision).denoiser
    denoiser.network.requires_grad_(True)
    chain = ChainConfig(steps=chosen.steps, sampler=chosen.sampler)
    sampler = build_sampler(chain, denoiser)
    phi = make_features(chosen.features, denoiser.shape[0]).to(device)
    draw = torch.Generator(device).manual_seed(0)
    bank = torch.randn((chosen.bank, phi.dim), generator=draw, device=device)
    shape = (sampler.draws, chosen.batch_size, *denoiser.shape)
    z = torch.randn(shape, generator=draw, device=device)
    objective = Objective.over(phi, bank, Polynomial())
    return Work(sampler, objective, z[0], z[1:] if sampler.stochastic else None)
