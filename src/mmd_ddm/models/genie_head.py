r"""GENIE's distilled head: d eps / d rho from the features of one network call.

The head sees x_t, eps, the last activations of the frozen network and the time; one residual
block makes of them three images k_1, k_2, k_3, which are mixed by the noise level rho_t:

    d eps / d rho = - k_1 / rho + k_2 rho / (1 + rho^2) + k_3 / (rho (1 + rho^2)).

It belongs to one network: the file names the weights it was distilled from, and is refused for
any others.

References:
    Dockhorn, Vahdat, Kreis, "GENIE: Higher-Order Denoising Diffusion Solvers", 2022, Section 4.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmd_ddm.models.find import beside_model, shorten, typed
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.files import atomic_write
from mmd_ddm.runs.fingerprint import weights_sha256

__all__ = [
    "GenieHead",
    "derivative",
    "head_folder",
    "head_of",
    "read_head",
    "with_features",
    "with_slope",
]

_FILE = "head.safetensors"


class GenieHead(nn.Module):
    """The head; before it is trained it answers 0, with which GENIE is DDIM.

    Args:
        channels: of an image.
        features: of the network's last activations, and of the head's own.
        groups: of its normalisation; divides ``features``.

    Attributes:
        distilled_from: hash of the weights that it learned from.
    """

    def __init__(self, channels: int, features: int, groups: int) -> None:
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
        from diffusers.models.resnet import ResnetBlock2D

        super().__init__()
        self.sizes = (channels, features, groups)
        self.distilled_from = ""
        self.conv_in = nn.Conv2d(2 * channels + features, features, 3, padding=1)
        self.time_proj = Timesteps(features, True, 0)
        self.time_embedding = TimestepEmbedding(features, 4 * features)
        self.block = ResnetBlock2D(in_channels=features, temb_channels=4 * features, groups=groups)
        self.norm = nn.GroupNorm(groups, features)
        self.conv_out = nn.Conv2d(features, 3 * channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x_t: Float[Tensor, "n c h w"],
        times: Float[Tensor, " n"],
        eps: Float[Tensor, "n c h w"],
        features: Float[Tensor, "n f h w"],
        rho: Float[Tensor, "n 1 1 1"],
    ) -> Float[Tensor, "n c h w"]:
        """Predict d eps / d rho.

        Args:
            x_t: noisy images.
            times: of each.
            eps: the network's answer.
            features: its last activations.
            rho: sigma_t / alpha_t of each.
        """
        embedded = self.time_embedding(self.time_proj(times).to(x_t.dtype))
        hidden = self.block(self.conv_in(torch.cat([x_t, eps, features], 1)), embedded)
        k_1, k_2, k_3 = self.conv_out(nn.functional.silu(self.norm(hidden))).chunk(3, 1)
        return (k_2 * rho**2 + k_3) / (rho * (1 + rho**2)) - k_1 / rho

    def save(self, model: str | Path, weights: str, of: str = "") -> None:
        """Write it beside the model of these weights, and of this `Denoiser.sha256` if given."""
        about = {
            "weights": weights,
            "model": of,
            "distilled_from": self.distilled_from or weights,
            "sizes": " ".join(map(str, self.sizes)),
        }
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        with atomic_write(head_folder(model) / _FILE) as file:
            file.write(save(state, about))


def head_folder(source: str | Path) -> Path:
    """Where a model's head is kept.

    Raises:
        ValueError: a model that is in no folder.
    """
    return beside_model(source, "genie-head", "GENIE head")


def read_head(source: str | Path, weights: str, model: str = "") -> GenieHead:
    """The head of this model, frozen.

    Args:
        source: the model's folder.
        weights: hash of its network's weights.
        model: `Denoiser.sha256`, if it has to be that one's.

    Raises:
        ValueError: none there, none of ours, or that of another model.
    """
    path, name = head_folder(source) / _FILE, typed(source)
    command = f"mmd-ddm genie-head {name} --data DATA"
    if not path.is_file():
        raise ValueError(f"no GENIE head of {name}: distil it with `{command}`")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}
        head = GenieHead(*map(int, about["sizes"].split()))
        head.load_state_dict(state)
        head.distilled_from, of = about["distilled_from"], about["weights"]
    except Exception as error:  # foreign content raises a dozen kinds
        raise ValueError(f"{path} is not a GENIE head of ours ({shorten(error)})") from error
    if of != weights or (model and about.get("model", "") not in ("", model)):
        raise ValueError(f"{path} is of another model: delete {path.parent}, then `{command}`")
    return head.eval().requires_grad_(False)


def head_of(denoiser: Denoiser) -> GenieHead:
    """The head of the network as it was loaded: finetuning keeps it, frozen.

    Raises:
        ValueError: the model's folder has none, or that of other weights.
    """
    if "head" not in denoiser.beside:
        weights = weights_sha256(denoiser.network)
        head = read_head(denoiser.source, weights, denoiser.sha256)
        denoiser.beside["head"] = head.to(denoiser.device)
    found: GenieHead = denoiser.beside["head"]
    return found


def derivative(
    denoiser: Denoiser,
    x_t: Float[Tensor, "n c h w"],
    t: float | Tensor,
    dx: Tensor,
    dt: float | Tensor,
) -> Float[Tensor, "n c h w"]:
    """The derivative of eps at (x_t, t) along (dx, dt): exact, by a call with dual numbers.

    It takes the time of two or three calls, and no autocast, which has no forward derivatives.

    Args:
        denoiser: the network.
        x_t: noisy images.
        t: one time for all, or a tensor with one each.
        dx: the way of x_t, of its shape.
        dt: the way of t.
    """
    now, way = (torch.as_tensor(v, dtype=x_t.dtype, device=x_t.device) for v in (t, dt))
    kept, denoiser.autocast = denoiser.autocast, None
    # Fused attention has no forward derivative; and torch warns of itself when jvp is loaded.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return torch.func.jvp(denoiser.eps, (x_t, now), (dx, way))[1]
        finally:
            denoiser.autocast = kept


def with_features(
    denoiser: Denoiser, x_t: Float[Tensor, "n c h w"], t: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Eps, and the last activations of a `UNet2DModel` before its output layers.

    Args:
        denoiser: the network.
        x_t: noisy images.
        t: one time for all, or a tensor with one each.
    """
    network: Any = denoiser.network
    kept: list[Tensor] = []
    layer = network.conv_norm_out
    hook = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    try:
        return denoiser.eps(x_t, t), kept[0].to(x_t.dtype)
    finally:
        hook.remove()


def with_slope(
    denoiser: Denoiser, x_t: Float[Tensor, "n c h w"], t: float
) -> tuple[Tensor, Tensor]:
    """Eps, and d eps / d rho along the flow as the head predicts it, in one call.

    Args:
        denoiser: the network; with its head.
        x_t: noisy images.
        t: one time for all.
    """
    eps, features = with_features(denoiser, x_t, t)
    times = torch.full((len(x_t),), t, dtype=x_t.dtype, device=x_t.device)
    alpha_t, sigma_t = denoiser.coefficients(times)
    return eps, head_of(denoiser)(x_t, times, eps, features, sigma_t / alpha_t)
