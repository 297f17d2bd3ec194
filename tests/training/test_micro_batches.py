"""How many images go through the network at once: as wanted, and fewer where memory runs out."""

import pytest
import torch
from small_net import SmallNet

from mmd_ddm.config import FinetuneConfig, SelectConfig
from mmd_ddm.features.pixels import Pixels
from mmd_ddm.maths.kernels import Polynomial
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.finetune import finetune
from mmd_ddm.training.objective import Objective


class Narrow(Pixels):
    """Has memory for so many images at once."""

    def __init__(self, most):
        super().__init__(1)
        self.most = most

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def run(path, micro_batch, most=100):
    """One iteration of 8 images: what went wrong, and the sizes that the network saw."""
    torch.manual_seed(0)
    denoiser = UNet2D(SmallNet(), NoiseSchedule.linear(), shape=(1, 8, 8))
    bank = torch.rand((20, 49), generator=torch.Generator().manual_seed(1))
    objective = Objective.over(Narrow(most), bank, Polynomial())
    sampler = make_sampler("ddim", denoiser, (600, 200))
    config = FinetuneConfig(
        iterations=1, batch_size=8, micro_batch=micro_batch, select=SelectConfig(every=0)
    )
    events, sizes = [], []
    with denoiser.network.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0]))):
        finetune(config, sampler, [objective], path, lambda **event: events.append(event))
    assert events[-1]["event"] == "train"
    assert 0 < events[-1]["seconds"] < 60
    return [event["message"] for event in events[:-1]], sizes


@pytest.mark.parametrize(("wanted", "most"), [(0, 8), (3, 3), (1, 1)])
def test_the_network_sees_a_micro_batch_at_once(wanted, most, tmp_path):
    faults, sizes = run(tmp_path / "c", wanted)
    assert not faults
    assert max(sizes) == most


def test_a_micro_batch_is_halved_until_it_fits(tmp_path):
    """Of two network calls one keeps its activations at first, none from then on."""
    faults, sizes = run(tmp_path / "c", 0, most=1)
    assert [message.partition("repeated with ")[2] for message in faults] == [
        "micro_batch 4, 1 network calls kept",
        "micro_batch 2, 0 network calls kept",
        "micro_batch 1, 0 network calls kept",
    ]
    assert sizes[-1] == 1
