r"""GENIE: the second-order Taylor step of the probability-flow ODE, with the exact derivative.

In rho = sigma / alpha (the paper's gamma) the slope over a step is

    eps' = eps_t + (rho_s - rho_t) / 2  d eps / d rho,
    d eps / d rho = d eps / d x (alpha_t eps_t - alpha_t sigma_t x_t) + d eps / d t  d t / d rho.

The paper distills d eps / d rho into a small head on the network. Here it is the Jacobian-vector
product of the pretrained network itself: nothing to train first, and exact, but a second call.
K steps cost 2K network calls, of which K carry dual numbers.

References:
    Dockhorn, Vahdat, Kreis, "GENIE: Higher-Order Denoising Diffusion Solvers", 2022, Eqs. 8 to 10.
"""

from torch import Tensor

from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.ode import SlopeSampler

__all__ = ["GENIE"]


class GENIE(SlopeSampler):
    """Second order in one step."""

    def slope(self, x_t: Tensor, t: float, s: float | None, walk: Walk) -> Tensor:
        """The Taylor polynomial's mean over the step."""
        eps = walk.eps(x_t, t)
        alpha_t, sigma_t = self.schedule(t)
        dx, dt = alpha_t * (eps - sigma_t * x_t), 1 / self.schedule.rho_slope(t)
        half = (self.schedule.rho(s) - self.schedule.rho(t)) / 2
        return eps + half * walk.eps_along(x_t, t, dx, dt)
