"""torch.compile, trusted only after its gradient has agreed with eager's.

Some releases of PyTorch compile a UNet's backward pass into a silently wrong one (its forward
pass agrees to 1e-8, its gradient is off by half). One batch shows it.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmd_ddm.models.protocol import Denoiser

__all__ = ["CompileError", "compile_checked", "gradient_error"]

# bf16 kernels that sum in another order differ by about a hundredth; a wrong one by half.
_TOLERANCE = 0.05


class CompileError(ValueError):
    """The compiled network has another gradient than the eager one."""


def gradient_error(
    denoiser: Denoiser, network: Callable[..., Any], x_t: Tensor, t: Tensor
) -> float:
    """Relative L2 difference of the weights' gradient between ``network`` and the denoiser's."""
    eager, other = (_gradient(denoiser, f, x_t, t) for f in (denoiser.network, network))
    return float((eager - other).norm() / eager.norm())


def compile_checked(denoiser: Denoiser, batch_size: int) -> nn.Module:
    """The denoiser's network compiled for one batch size, sharing its weights.

    Raises:
        CompileError: its gradient disagrees with eager's.
    """
    compiled = cast(nn.Module, torch.compile(denoiser.network, dynamic=False))
    draw = torch.Generator(denoiser.device).manual_seed(0)
    x_t = torch.randn((batch_size, *denoiser.latent_shape), generator=draw, device=denoiser.device)
    t = torch.randint(len(denoiser.schedule), (batch_size,), generator=draw, device=x_t.device)
    error = gradient_error(denoiser, compiled, x_t, t)
    if not error < _TOLERANCE:
        raise CompileError(
            f"torch.compile of this PyTorch ({torch.__version__}) gives a wrong gradient for this "
            f"network (relative error {error:.2g}): run without compile"
        )
    return compiled


def _gradient(denoiser: Denoiser, network: Callable[..., Any], x_t: Tensor, t: Tensor) -> Tensor:
    denoiser.network.zero_grad()
    condition = denoiser.conditions(range(len(x_t)))
    told = condition.to(x_t.device).tensors if condition else {}
    with denoiser.precision():
        output = network(x_t, t, **told)
    getattr(output, "sample", output).float().square().mean().backward()
    gradients = [
        torch.zeros_like(p) if p.grad is None else p.grad for p in denoiser.network.parameters()
    ]
    flat = torch.cat([gradient.float().flatten() for gradient in gradients])
    denoiser.network.zero_grad()
    return flat
