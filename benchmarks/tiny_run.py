"""A finetuning small enough to be killed and repeated: 8 x 8 noise, 40 thousand weights."""

from collections.abc import Callable
from pathlib import Path

import torch

from mmd_ddm.config import ChainConfig, FinetuneConfig, NetworkConfig, SelectConfig
from mmd_ddm.evaluation.metrics import kid_projections
from mmd_ddm.features.bank import extract
from mmd_ddm.features.registry import make_features
from mmd_ddm.jobs.build import build_network, build_sampler
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.projections import Projections
from mmd_ddm.maths.random import SELECT
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.runs.folder import RunLog
from mmd_ddm.samplers.draw import draw
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.objective import Objective

__all__ = ["tiny_run"]


def tiny_run(
    folder: Path, iterations: int, save_every: int, on_event: Callable[..., None] | None = None
) -> str:
    """Finetune into ``folder``, or go on there; the hash of the weights that were kept."""
    torch.manual_seed(0)
    shape = NetworkConfig((8, 16), (False, True), attention_head_dim=8, norm_num_groups=4)
    network = build_network(shape, (1, 8, 8))
    denoiser = UNet2D(network, NoiseSchedule.linear(), shape=(1, 8, 8))
    sampler = build_sampler(ChainConfig(steps=3), denoiser)
    phi = make_features("pixels", 1)
    real = torch.randint(0, 256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    bank = extract(real.byte(), phi)
    config = FinetuneConfig(
        iterations=iterations, batch_size=4, lr=1e-4, ema_decay=0.9, save_every=save_every, keep=2,
        select=SelectConfig(every=10, samples=8, patience=0, diverged=0),
    )  # fmt: skip
    objectives = [Objective.over(phi, bank, Polynomial())]
    with RunLog(folder, "finetune", {"iterations": iterations}) as log:

        def note(**event: object) -> None:
            log.write(**event)
            if on_event:
                on_event(**event)

        def evaluate() -> Projections:
            return kid_projections(extract(draw(sampler, 8, purpose=SELECT)[0], phi), bank)

        finetune(config, sampler, objectives, folder / "checkpoint.pt", note, evaluate)
    return weights_sha256(network)
