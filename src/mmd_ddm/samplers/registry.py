"""The samplers: one loop (`base`), one file a family, and their names.

A *step* is one of the K times; what it costs is the family's affair:

=========================  ==========================  ========================================
name                       network calls at K steps    file
=========================  ==========================  ========================================
ddim                       K                           ddim.py; takes eta
consistency                K                           consistency.py; adds noise
ddpm-small, ddpm-large     K                           ddpm.py; adds noise
analytic-dpm               K                           analytic.py; adds noise; needs Gamma
analytic-ddim              K                           analytic.py; same; takes eta
s-pndm                     K + 1 (K >= 2)              pndm.py
f-pndm                     K + 9 (K >= 4)              pndm.py
ipndm                      K                           pndm.py; takes order
fastdpm-var[-quadratic]    K (K >= 2)                  fastdpm.py; takes eta; has its own times
dpm-solver-2, -3           2K, 3K (see there)          dpm_solver.py; of order 1, it is ddim
dpm-solver-fast[-type-2]   K                           dpm_solver.py; has its own times
dpm-solver++-2m, -3m       K                           dpm_solver_pp.py
unipc                      K                           unipc.py; takes order
deis                       K                           deis.py; takes order
heun                       2K - 1                      ode.py
genie                      2K - 1                      genie.py; K - 1 of them with derivatives
genie-head                 K                           genie.py; needs its head
=========================  ==========================  ========================================

All can be differentiated with respect to the weights and to x_T.
"""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.samplers.analytic import AnalyticDDIM, AnalyticDPM
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.samplers.consistency import Consistency
from mmd_ddm.samplers.ddim import DDIM
from mmd_ddm.samplers.ddpm import DDPM
from mmd_ddm.samplers.deis import DEIS
from mmd_ddm.samplers.dpm_solver import DPMSolver, DPMSolverFast
from mmd_ddm.samplers.dpm_solver_pp import DPMSolverPP
from mmd_ddm.samplers.fastdpm import FastDPMVar
from mmd_ddm.samplers.genie import GENIE, GENIEHead
from mmd_ddm.samplers.learned import Learned
from mmd_ddm.samplers.ode import Heun
from mmd_ddm.samplers.pndm import FPNDM, IPNDM, SPNDM
from mmd_ddm.samplers.rk45 import RK45
from mmd_ddm.samplers.unipc import UniPC

__all__ = ["PUBLISHED_SPACINGS", "SAMPLERS", "make_sampler", "orders_of", "register_sampler"]

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ddim": DDIM,
    "ddpm-small": partial(DDPM, variance="fixed-small"),
    "ddpm-large": partial(DDPM, variance="fixed-large"),
    "consistency": Consistency,
    "analytic-dpm": AnalyticDPM,
    "analytic-ddim": AnalyticDDIM,
    "s-pndm": SPNDM,
    "f-pndm": FPNDM,
    "ipndm": IPNDM,
    "fastdpm-var": partial(FastDPMVar, variances="linear"),
    "fastdpm-var-quadratic": partial(FastDPMVar, variances="quadratic"),
    "dpm-solver-2": partial(DPMSolver, order=2),
    "dpm-solver-3": partial(DPMSolver, order=3),
    "dpm-solver-fast": DPMSolverFast,
    "dpm-solver-fast-type-2": partial(DPMSolverFast, conversion="type-2"),
    "dpm-solver++-2m": partial(DPMSolverPP, order=2),
    "dpm-solver++-3m": partial(DPMSolverPP, order=3),
    "unipc": UniPC,
    "deis": DEIS,
    "heun": Heun,
    "genie": GENIE,
    "genie-head": GENIEHead,
}

# The times that their authors took, or the nearest of ours; FastDPM and DPM-Solver-fast have
# their own.
PUBLISHED_SPACINGS = {
    **dict.fromkeys(
        ("ddim", "ddpm-small", "ddpm-large", "analytic-dpm", "analytic-ddim", "s-pndm", "f-pndm"),
        "leading",
    ),
    # Quadratic in t: DEIS, Sec. 4 and its code; GENIE, App. F.
    **dict.fromkeys(("ipndm", "deis", "genie", "genie-head"), "quadratic-formula"),
    # Uniform in log-SNR: DPM-Solver, DPM-Solver++ and UniPC on images of pixels.
    **dict.fromkeys(
        ("dpm-solver-2", "dpm-solver-3", "dpm-solver++-2m", "dpm-solver++-3m", "unipc"),
        "log-snr-open",
    ),
    "heun": "karras",
    "consistency": "trailing",  # as diffusers' LCMScheduler
}


def register_sampler(name: str, cls: Callable[..., Sampler]) -> None:
    """Add a sampler of one's own, which every verb then takes by that name.

    Args:
        name: not that of another one.
        cls: made as a `Sampler` is: ``cls(denoiser, times, *, clip, recompute)``, and ``eta`` or
            ``order`` if it names that.

    Raises:
        ValueError: a name that is taken.
    """
    if name in SAMPLERS:
        raise ValueError(f"there is a sampler {name!r} already; choose another name")
    SAMPLERS[name] = cls


def orders_of(name: str) -> range:
    """The orders from 2 on that a sampler lets one choose; none where it has one only."""
    return range(2, getattr(SAMPLERS[name], "highest", 1) + 1)


def make_sampler(
    name: str,
    denoiser: Denoiser,
    times: Sequence[float],
    *,
    eta: float = 0.0,
    order: int = 0,
    clip: bool = False,
    recompute: bool = False,
) -> Sampler:
    """A sampler by its name.

    Args:
        name: a key of `SAMPLERS`; or ``learned``, of a model that brings its own; or ``rk45``,
            which no number of steps is comparable with.
        denoiser: as in `Sampler`.
        times: as in `Sampler`.
        eta: for the samplers that take it; the others accept 0 only.
        order: likewise; 0 is the sampler's own rule.
        clip: as in `Sampler`.
        recompute: as in `Sampler`.

    Raises:
        ValueError: an unknown name, an eta or order the sampler has no use for, or times it
            cannot visit.
    """
    if name == "learned":
        return Learned(denoiser, times, clip=clip, recompute=recompute)
    if name == "rk45":
        return RK45(denoiser, times, clip=clip, recompute=recompute)
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}")
    options: dict[str, Any] = {"clip": clip, "recompute": recompute}
    for key, value in (("eta", eta), ("order", order)):
        takers = [other for other in SAMPLERS if _takes(other, key)]
        if name in takers:
            options[key] = value
        elif value != 0:
            with_it = ", ".join(takers)
            raise ValueError(f"{name} has no {key}; got {value:g} (with {key}: {with_it})")
    return SAMPLERS[name](denoiser, times, **options)


def _takes(name: str, option: str) -> bool:
    """Whether a sampler names this option; a name that fixes its value does not."""
    made = SAMPLERS[name]
    fixed = made.keywords if isinstance(made, partial) else {}
    return option in signature(made).parameters and option not in fixed
