"""The work that is measured: a model, its chain and its objective, as finetuning has them."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmd_ddm.build import build_device, build_sampler, load_model
from mmd_ddm.config import ChainConfig
from mmd_ddm.features import make_features
from mmd_ddm.kernels import Polynomial
from mmd_ddm.objective import Objective
from mmd_ddm.samplers.base import Sampler

__all__ = ["Work", "options", "prepare"]

RESULTS = Path(__file__).parent / "results"


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
    """Load what the settings name; the bank is random numbers, which cost what features cost."""
    chosen = argparse.Namespace(**{**vars(settings), **changes})
    torch.set_num_threads(chosen.threads)
    device = build_device(chosen.device)
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
