"""The table of a chain, walked by its definition, draws what the chain draws."""

import pytest
import torch

from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.samplers.table import table_of

TIMES = (990, 700.5, 402, 211, 30)
LINEAR = (
    "ddim", "s-pndm", "f-pndm", "ipndm", "fastdpm-var", "dpm-solver-2", "dpm-solver-3",
    "dpm-solver-fast", "dpm-solver++-2m", "dpm-solver++-3m", "unipc", "deis", "heun",
)  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_the_sums_of_the_table_are_the_walk(name, denoiser64):
    sampler = make_sampler(name, denoiser64, TIMES)
    draw = torch.Generator().manual_seed(0)
    x_T = torch.randn(2, *denoiser64.shape, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        expected = sampler(x_T)
        table = table_of(sampler)
        x_t, known = x_T, [x_T]
        for t, row in zip(table.times, table.weights, strict=True):
            known.append(denoiser64.predict(x_t, t)[0])
            x_t = sum(w * x for w, x in zip(row.tolist(), known, strict=False))
    assert sampler.nfe == len(table.times)
    assert (x_t - expected).abs().max() <= 1e-9 * expected.abs().max()


class Thresholded(DDIM):
    """A solver of a user's own that is not linear."""

    def clamped(self, x_0):
        return super().clamped(x_0).tanh()


def test_what_only_looks_linear_has_none(denoiser64):
    assert table_of(Thresholded(denoiser64, TIMES)) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [("ddim", {"eta": 0.5}), ("ddpm-small", {}), ("unipc", {"clip": True}), ("genie", {})],
)
def test_what_is_not_linear_has_none(name, options, denoiser64):
    assert table_of(make_sampler(name, denoiser64, TIMES, **options)) is None
