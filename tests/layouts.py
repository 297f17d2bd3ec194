"""The networks of the first codebases as formulas, which make their random weights as they run.

An oracle for conversion: written from the papers and the shapes of the released checkpoints, it
shares no line with diffusers' networks or with ours.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, group_norm, interpolate, linear, pad, silu


class Weights:
    """Tensors by name, drawn when first asked for; ``state`` is then the checkpoint."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def get(self, name: str, *shape: int) -> Tensor:
        if name not in self.state:
            scale = max(1, math.prod(shape[1:])) ** -0.5
            self.state[name] = scale * torch.randn(shape, generator=self.generator)
        return self.state[name]

    def conv(self, name: str, x: Tensor, channels: int, size: int = 3, **options) -> Tensor:
        weight = self.get(f"{name}.weight", channels, x.shape[1], size, size)
        return conv2d(x, weight, self.get(f"{name}.bias", channels), **options)

    def linear(self, name: str, x: Tensor, channels: int) -> Tensor:
        weight = self.get(f"{name}.weight", channels, x.shape[1])
        return linear(x, weight, self.get(f"{name}.bias", channels))

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        channels = x.shape[1]
        gain = self.get(f"{name}.weight", channels)
        return group_norm(x, 32, gain, self.get(f"{name}.bias", channels), eps)


def ddpm(
    w: Weights, x: Tensor, t: Tensor, *, ch: int, mult: Sequence[int], layers: int,
    attends: Sequence[int],
) -> Tensor:  # fmt: skip
    """Ho et al., 2020, as pesser/pytorch_diffusion and ermongroup/ddim name its tensors."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(ch // 2) / (ch // 2 - 1))
    angles = t[:, None] * frequencies
    temb = w.linear("temb.dense.0", torch.cat([angles.sin(), angles.cos()], 1), 4 * ch)
    temb = silu(w.linear("temb.dense.1", silu(temb), 4 * ch))

    def block(name: str, h: Tensor, out: int) -> Tensor:
        inner = w.conv(f"{name}.conv1", silu(w.norm(f"{name}.norm1", h, 1e-6)), out, padding=1)
        inner = inner + w.linear(f"{name}.temb_proj", temb, out)[..., None, None]
        inner = w.conv(f"{name}.conv2", silu(w.norm(f"{name}.norm2", inner, 1e-6)), out, padding=1)
        return inner + (h if h.shape[1] == out else w.conv(f"{name}.nin_shortcut", h, out, 1))

    def attention(name: str, h: Tensor) -> Tensor:
        normed, c = w.norm(f"{name}.norm", h, 1e-6), h.shape[1]
        q, k, v = (w.conv(f"{name}.{part}", normed, c, 1).flatten(2) for part in "qkv")
        share = (q.transpose(1, 2) @ k * c**-0.5).softmax(2)
        return h + w.conv(f"{name}.proj_out", (v @ share.transpose(1, 2)).view_as(h), c, 1)

    skips = [w.conv("conv_in", x, ch, padding=1)]
    for i, m in enumerate(mult):
        for j in range(layers):
            h = block(f"down.{i}.block.{j}", skips[-1], ch * m)
            skips.append(attention(f"down.{i}.attn.{j}", h) if i in attends else h)
        if i < len(mult) - 1:
            padded = pad(skips[-1], (0, 1, 0, 1))
            skips.append(w.conv(f"down.{i}.downsample.conv", padded, ch * m, stride=2))
    h = block("mid.block_1", skips[-1], ch * mult[-1])
    h = block("mid.block_2", attention("mid.attn_1", h), ch * mult[-1])
    for i in reversed(range(len(mult))):
        for j in range(layers + 1):
            h = block(f"up.{i}.block.{j}", torch.cat([h, skips.pop()], 1), ch * mult[i])
            h = attention(f"up.{i}.attn.{j}", h) if i in attends else h
        if i:
            h = interpolate(h, scale_factor=2)
            h = w.conv(f"up.{i}.upsample.conv", h, ch * mult[i], padding=1)
    return w.conv("conv_out", silu(w.norm("norm_out", h, 1e-6)), x.shape[1], padding=1)


def improved(
    w: Weights, x: Tensor, t: Tensor, *, ch: int, mult: Sequence[int], layers: int,
    attends: Sequence[int], heads: int, scale_shift: bool = True,
) -> Tensor:  # fmt: skip
    """Nichol & Dhariwal, 2021, as openai/improved-diffusion does; the second half is the variance.

    Args:
        t: already rescaled to 0 ... 1000.
    """
    angles = t[:, None] * torch.exp(-math.log(1e4) * torch.arange(ch // 2) / (ch // 2))
    temb = w.linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1), 4 * ch)
    temb = silu(w.linear("time_embed.2", silu(temb), 4 * ch))

    def block(name: str, h: Tensor, out: int) -> Tensor:
        inner = silu(w.norm(f"{name}.in_layers.0", h, 1e-5))
        inner = w.conv(f"{name}.in_layers.2", inner, out, padding=1)
        emb = w.linear(f"{name}.emb_layers.1", temb, out * (1 + scale_shift))[..., None, None]
        if scale_shift:
            scale, shift = emb.chunk(2, 1)
            inner = w.norm(f"{name}.out_layers.0", inner, 1e-5) * (1 + scale) + shift
        else:
            inner = w.norm(f"{name}.out_layers.0", inner + emb, 1e-5)
        inner = w.conv(f"{name}.out_layers.3", silu(inner), out, padding=1)
        return inner + (h if h.shape[1] == out else w.conv(f"{name}.skip_connection", h, out, 1))

    skips, n = [w.conv("input_blocks.0.0", x, ch, padding=1)], 0
    for i, m in enumerate(mult):
        for _ in range(layers):
            n += 1
            h = block(f"input_blocks.{n}.0", skips[-1], ch * m)
            skips.append(_attention(w, heads, f"input_blocks.{n}.1", h) if i in attends else h)
        if i < len(mult) - 1:
            n += 1
            name = f"input_blocks.{n}.0.op"
            skips.append(w.conv(name, skips[-1], ch * m, stride=2, padding=1))
    h = block("middle_block.0", skips[-1], ch * mult[-1])
    h = block("middle_block.2", _attention(w, heads, "middle_block.1", h), ch * mult[-1])
    for n in range(len(mult) * (layers + 1)):
        i = len(mult) - 1 - n // (layers + 1)
        name = f"output_blocks.{n}"
        h = block(f"{name}.0", torch.cat([h, skips.pop()], 1), ch * mult[i])
        h = _attention(w, heads, f"{name}.1", h) if i in attends else h
        if i and n % (layers + 1) == layers:
            name = f"{name}.{1 + (i in attends)}.conv"
            h = w.conv(name, interpolate(h, scale_factor=2), ch * mult[i], padding=1)
    return w.conv("out.2", silu(w.norm("out.0", h, 1e-5)), 2 * x.shape[1], padding=1)


def _attention(w: Weights, heads: int, name: str, h: Tensor) -> Tensor:
    def matrix(part: str, x: Tensor, channels: int) -> Tensor:
        weight = w.get(f"{name}.{part}.weight", channels, x.shape[1], 1)  # a 1-d convolution
        return weight[..., 0] @ x + w.get(f"{name}.{part}.bias", channels)[:, None]

    flat, c = w.norm(f"{name}.norm", h, 1e-5).flatten(2), h.shape[1]
    answers = []
    for one in matrix("qkv", flat, 3 * c).chunk(heads, 1):
        q, k, v = one.chunk(3, 1)
        share = (q.transpose(1, 2) @ k * (c // heads) ** -0.5).softmax(2)
        answers.append(v @ share.transpose(1, 2))
    return h + matrix("proj_out", torch.cat(answers, 1), c).view_as(h)
