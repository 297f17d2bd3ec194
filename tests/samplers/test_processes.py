"""Chains on every noise process, walked beside diffusers' own schedulers with one network."""

import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from mmd_ddm.maths.continuous import FlowSchedule, SigmaSchedule
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.maths.times import select_times
from mmd_ddm.models.families.edm import EDMUNet2D
from mmd_ddm.models.families.flow import FlowUNet2D
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.learned import Trainable
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.samplers.table import table_of

K = 5
BOUND = 1e-5  # of the largest value
VP = {"clip_sample": False, "timestep_spacing": "trailing"}
MULTISTEP = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
# Half of diffusers' schedulers ask numpy for tensors in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def z():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def stock(scheduler, network, z, **how):
    """Their loop, as their pipelines have it."""
    scheduler.set_timesteps(None if "sigmas" in how else K, **how)
    x = z * getattr(scheduler, "init_noise_sigma", 1)
    for t in scheduler.timesteps:
        said = network(
            scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x,
            t.float(),
        ).sample
        x = scheduler.step(said, t, x).prev_sample
    return x


def check(ours, theirs):
    assert float((ours - theirs).abs().max()) <= BOUND * float(theirs.abs().max())
    assert theirs.std() > 0.1


def walk(name, denoiser, times, z, **options):
    with torch.no_grad():
        return make_sampler(name, denoiser, times, **options)(z)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("zero", [False, True], ids=["", "zero terminal SNR"])
def test_ddim_on_betas(prediction, zero, tiny_unet, z):
    if zero and prediction == "epsilon":
        pytest.skip("which says nothing there")
    network = tiny_unet()
    scheduler = DDIMScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero, **VP)
    denoiser = UNet2D(
        network, NoiseSchedule.from_config(scheduler.config), prediction, shape=(1, 8, 8)
    )
    theirs = stock(scheduler, network, z)
    times = scheduler.timesteps.tolist()
    assert (denoiser.schedule(999)[0] == 0) == zero
    check(walk("ddim", denoiser, times, z), theirs)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_euler_walks_in_x_over_alpha(prediction, tiny_unet, z):
    network = tiny_unet()
    scheduler = EulerDiscreteScheduler(prediction_type=prediction, timestep_spacing="trailing")
    denoiser = UNet2D(
        network, NoiseSchedule.from_config(scheduler.config), prediction, shape=(1, 8, 8)
    )
    scheduler.set_timesteps(K)
    times = scheduler.timesteps.tolist()
    alpha = denoiser.schedule(times[0])[0]
    theirs = stock(scheduler, network, z / alpha / scheduler.init_noise_sigma)
    check(walk("ddim", denoiser, times, z), theirs)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_dpm_solver_pp_on_betas(prediction, order, tiny_unet, z):
    network = tiny_unet()
    scheduler = DPMSolverMultistepScheduler(
        prediction_type=prediction, solver_order=order, **MULTISTEP
    )
    denoiser = UNet2D(
        network, NoiseSchedule.from_config(scheduler.config), prediction, shape=(1, 8, 8)
    )
    theirs = stock(scheduler, network, z)
    name = "ddim" if order == 1 else "dpm-solver++-2m"
    check(walk(name, denoiser, scheduler.timesteps.tolist(), z), theirs)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_unipc_on_betas(prediction, tiny_unet, z):
    network = tiny_unet()
    scheduler = UniPCMultistepScheduler(prediction_type=prediction, solver_order=3, **MULTISTEP)
    denoiser = UNet2D(
        network, NoiseSchedule.from_config(scheduler.config), prediction, shape=(1, 8, 8)
    )
    theirs = stock(scheduler, network, z)
    check(walk("unipc", denoiser, scheduler.timesteps.tolist(), z, order=3), theirs)


@pytest.mark.parametrize(
    ("config", "how"),
    [
        ({"shift": 1.0}, {"sigmas": np.linspace(1, 1 / K, K)}),
        ({"shift": 3.0}, {"sigmas": np.linspace(1, 1 / K, K)}),
        ({"shift": 3.0, "shift_terminal": 0.3}, {}),
        ({"use_dynamic_shifting": True}, {"sigmas": np.linspace(1, 1 / K, K), "mu": 1.15}),
    ],
    ids=["no shift", "shift", "terminal", "dynamic"],
)
def test_flow_match_euler(config, how, tiny_unet, z):
    network = tiny_unet()
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    theirs = stock(scheduler, network, z, **how)
    times = (1000 * scheduler.sigmas.double())[:-1].clamp(max=1000).tolist()
    denoiser = FlowUNet2D(network, FlowSchedule(), "flow_prediction", shape=(1, 8, 8))
    assert denoiser.schedule(times[0])[0] == 0
    check(walk("ddim", denoiser, times, z), theirs)
    # Told as float32 there: equal times, where a spacing has them.
    if "terminal" not in str(config):
        shift = config.get("shift", math.exp(1.15))
        placed = FlowSchedule(shift).place([999, 799, 599, 399, 199])
        assert placed == pytest.approx(times, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "name", "order"),
    [
        (DPMSolverMultistepScheduler, {"solver_order": 1}, "ddim", 0),
        (DPMSolverMultistepScheduler, {"solver_order": 2}, "dpm-solver++-2m", 0),
        (UniPCMultistepScheduler, {"solver_order": 2}, "unipc", 2),
        (UniPCMultistepScheduler, {"solver_order": 3}, "unipc", 3),
    ],
    ids=["dpm-solver++-1", "dpm-solver++-2m", "unipc-2", "unipc-3"],
)
def test_multistep_solvers_on_a_flow(kind, options, name, order, tiny_unet, z):
    network = tiny_unet()
    scheduler = kind(**options, **FLOW, **MULTISTEP)
    scheduler.set_timesteps(K)
    # Their network is told whole numbers; here both are told the levels themselves.
    levels = (1000 * scheduler.sigmas.double())[:-1]

    class Told(torch.nn.Module):
        def forward(self, x, t):
            return network(x, levels[[*scheduler.timesteps].index(int(t))].float())

    theirs = stock(scheduler, Told(), z)
    denoiser = FlowUNet2D(network, FlowSchedule(), "flow_prediction", shape=(1, 8, 8))
    check(walk(name, denoiser, levels.tolist(), z, order=order), theirs)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (EDMEulerScheduler, {}, "ddim"),
        (EDMDPMSolverMultistepScheduler, {"final_sigmas_type": "zero"}, "dpm-solver++-2m"),
    ],
    ids=["euler", "dpm-solver++-2m"],
)
def test_edm(kind, options, name, prediction, tiny_unet, z):
    network = tiny_unet()
    scheduler = kind(prediction_type=prediction, sigma_min=0.3, **options)
    theirs = stock(scheduler, network, z)
    said = {"epsilon": "edm", "v_prediction": "edm_v"}[prediction]
    denoiser = EDMUNet2D(network, SigmaSchedule(), said, shape=(1, 8, 8))
    times = scheduler.sigmas.double()[:-1].tolist()
    check(walk(name, denoiser, [min(t, 80.0) for t in times], z), theirs)


ZERO = NoiseSchedule(torch.cat([NoiseSchedule.linear().alpha_bar[:-1], torch.zeros(1)]))
PROCESSES = {
    "betas": NoiseSchedule.linear(), "zero terminal SNR": ZERO,
    "flow": FlowSchedule(), "edm": SigmaSchedule(),
}  # fmt: skip
SOLVERS = (
    "ddim", "dpm-solver++-2m", "dpm-solver++-3m", "unipc", "heun", "dpm-solver-2", "dpm-solver-3",
    "deis", "ipndm",
)  # fmt: skip


class GaussianX0(Denoiser):
    """x_0 of data that are N(0, 1/4), on any process."""

    prediction = "sample"

    def __init__(self, schedule):
        super().__init__(torch.nn.Linear(1, 1).double(), schedule, (1, 8, 8))

    def forward(self, x_t, t, condition=None):
        of = self.coefficients if isinstance(t, torch.Tensor) else self.schedule
        alpha_t, sigma_t = of(t)
        return alpha_t / 4 * x_t / (alpha_t**2 / 4 + sigma_t**2)


@pytest.mark.parametrize("spacing", ["trailing", "log-snr", "karras"])
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("process", PROCESSES)
def test_every_solver_follows_the_exact_flow(process, name, spacing, z):
    schedule = PROCESSES[process]
    times = select_times(spacing, 60, 1000, schedule)
    sampler = make_sampler(name, GaussianX0(schedule), times)
    got = sampler(z.double())
    (alpha, sigma), start = schedule(times[0]), schedule.start(times[0])
    exact = start * z.double() * (0.25 / (alpha**2 / 4 + sigma**2)) ** 0.5
    error = float((got - exact).norm() / exact.norm())
    assert error < (0.06 if name == "ddim" else 0.02)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_flow_and_a_vp_chain_of_equal_levels_draw_the_same(name, z):
    """x' = x sqrt(alpha'^2 + sigma'^2) / sqrt(alpha^2 + sigma^2), and nothing else."""
    if name in ("deis", "ipndm"):
        pytest.skip("their polynomials are in time, which is another on each process")
    flow, vp = FlowSchedule(), NoiseSchedule.linear()
    times = [900.0, 600.0, 350.0, 150.0]
    same = [float(vp.time_of(flow.log_snr(t))) for t in times]
    x = [
        make_sampler(name, GaussianX0(s), at)(z.double()) for s, at in ((flow, times), (vp, same))
    ]
    # The walk starts from z on both.
    scale = math.hypot(*flow(times[0]))
    if "solver-" not in name:  # whose last slope aims at the schedule's own last time
        torch.testing.assert_close(x[0] * scale, x[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "s-pndm",
        "f-pndm",
        "fastdpm-var",
        "dpm-solver-fast",
        "genie",
        "dpm-solver-fast-type-2",
        "analytic-dpm",
        "analytic-ddim",
    ],
)
@pytest.mark.parametrize("process", ["flow", "edm"])
def test_what_is_written_in_betas_is_refused_by_name(name, process):
    schedule = PROCESSES[process]
    with pytest.raises(ValueError, match=r"is written in betas, and this model's noise is") as e:
        make_sampler(name, GaussianX0(schedule), schedule.place([999, 749, 499, 249]))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("process", ["flow", "edm", "zero terminal SNR"])
def test_times_can_be_learned_on_every_process(process, z):
    schedule = PROCESSES[process]
    start = make_sampler("ddim", GaussianX0(schedule), select_times("trailing", 4, 1000, schedule))
    made = Trainable(start, lambda t: make_sampler("ddim", GaussianX0(schedule), t))
    torch.testing.assert_close(made(z.double()), start(z.double()), rtol=1e-6, atol=1e-9)
    made(z.double()).square().sum().backward()
    assert made.shares.grad.isfinite().all()
    assert made.shares.grad.norm() > 0


@pytest.mark.parametrize("process", ["flow", "edm", "zero terminal SNR"])
@pytest.mark.parametrize("name", ["ddim", "unipc", "dpm-solver++-2m", "deis", "heun"])
def test_a_table_is_the_walk_on_every_process(process, name, z):
    schedule = PROCESSES[process]
    sampler = make_sampler(name, GaussianX0(schedule), select_times("trailing", 4, 1000, schedule))
    table, known = table_of(sampler), [z.double() * schedule.start(sampler.times[0])]
    x_t = known[0]
    for t, row in zip(table.times, table.weights, strict=True):
        known.append(sampler.denoiser.predict(x_t, t)[0])
        x_t = sum(w * x for w, x in zip(row.tolist(), known, strict=False))
    torch.testing.assert_close(x_t, sampler(z.double()), rtol=1e-9, atol=1e-12)
