r"""What a network says, as the pair (x_0, eps) of x_t = alpha_t x_0 + sigma_t eps.

=================  =================================  ==================================
prediction F       x_0                                eps
=================  =================================  ==================================
epsilon            (x_t - sigma_t F) / alpha_t        F
sample             F                                  (x_t - alpha_t F) / sigma_t
v_prediction       alpha_t x_t - sigma_t F            alpha_t F + sigma_t x_t
flow_prediction    (x_t - sigma_t F)                  (x_t + alpha_t F)
                   / (alpha_t + sigma_t)              / (alpha_t + sigma_t)
edm, edm_v         c_skip x_t +- c_out F              (x_t - x_0) / sigma_t
=================  =================================  ==================================

Each is taken from F itself: only ``epsilon`` divides by alpha_t, which is 0 where nothing of the
image is left, and only ``sample`` by sigma_t. v is for alpha_t^2 + sigma_t^2 = 1; a flow's
velocity is eps - x_0. Of EDM, alpha_t = 1 and F is the answer to c_in x_t, with s the deviation of
the data and m the level at which x_0 is x_t itself (0 in EDM, sigma_min in consistency models):

    c_in = 1 / sqrt(sigma_t^2 + s^2)           c_skip = s^2 / ((sigma_t - m)^2 + s^2)
    c_out = (sigma_t - m) s c_in

References:
    Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022 (v).
    Lipman et al., "Flow Matching for Generative Modeling", 2023.
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
    Table 1 (EDM).
    Song et al., "Consistency Models", 2023, Appendix C.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

__all__ = ["PREDICTIONS", "pair", "target"]

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction", "edm", "edm_v")


def pair(
    x_t: Float[Tensor, "n c h w"],
    output: Float[Tensor, "n c h w"],
    alpha_t: Any,
    sigma_t: Any,
    prediction: str,
    *,
    sigma_data: float = 0.5,
    sigma_min: float = 0.0,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """``(x_0, eps)``.

    Args:
        x_t: noisy images.
        output: what the network says of them.
        alpha_t: a number, or one for each of them, [n, 1, 1, 1].
        sigma_t: likewise.
        prediction: one of `PREDICTIONS`.
        sigma_data: s, of EDM.
        sigma_min: m, of EDM.

    Raises:
        ValueError: another prediction.
    """
    if prediction == "epsilon":
        return (x_t - sigma_t * output) / alpha_t, output
    if prediction == "sample":
        return output, (x_t - alpha_t * output) / sigma_t
    if prediction == "v_prediction":
        return alpha_t * x_t - sigma_t * output, alpha_t * output + sigma_t * x_t
    if prediction == "flow_prediction":
        whole = alpha_t + sigma_t
        return (x_t - sigma_t * output) / whole, (x_t + alpha_t * output) / whole
    above, variance, signed = _edm(sigma_t, prediction, sigma_data, sigma_min)
    x_0 = sigma_data**2 / variance * x_t + signed * output
    # (x_t - x_0) / sigma_t, but for the cancellation.
    return x_0, (above**2 / variance / sigma_t) * x_t - (signed / sigma_t) * output


def target(
    x_0: Float[Tensor, "n c h w"],
    eps: Float[Tensor, "n c h w"],
    alpha_t: Any,
    sigma_t: Any,
    prediction: str,
    *,
    sigma_data: float = 0.5,
    sigma_min: float = 0.0,
) -> Float[Tensor, "n c h w"]:
    """F, of which `pair` makes this pair: what a network is trained to say of x_t.

    Args:
        x_0: images.
        eps: the noise in x_t.
        alpha_t: as in `pair`.
        sigma_t: likewise.
        prediction: likewise.
        sigma_data: likewise.
        sigma_min: likewise.

    Raises:
        ValueError: another prediction.
    """
    if prediction == "epsilon":
        return eps
    if prediction == "sample":
        return x_0
    if prediction == "v_prediction":
        v: Tensor = alpha_t * eps - sigma_t * x_0
        return v
    if prediction == "flow_prediction":
        return eps - x_0
    above, variance, signed = _edm(sigma_t, prediction, sigma_data, sigma_min)
    # (x_0 - c_skip x_t) / c_out, but for the cancellation.
    f: Tensor = (above**2 * x_0 - sigma_data**2 * sigma_t * eps) / variance / signed
    return f


def _edm(
    sigma_t: Any, prediction: str, sigma_data: float, sigma_min: float
) -> tuple[Any, Any, Any]:
    """``sigma_t - m``, the variance that c_skip divides by, and c_out with its sign."""
    if prediction not in ("edm", "edm_v"):
        raise ValueError(
            f"unknown prediction type {prediction!r}; choose one of {', '.join(PREDICTIONS)}"
        )
    above = sigma_t - sigma_min
    c_out = above * sigma_data / (sigma_t**2 + sigma_data**2) ** 0.5
    return above, above**2 + sigma_data**2, c_out if prediction == "edm" else -c_out
