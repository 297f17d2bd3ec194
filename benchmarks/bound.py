"""Time of a finetuning iteration over the time that its multiply-adds must take.

The bound: the multiply-adds of the forward and backward passes (and of the recomputation, where
there is any), over the throughput that this machine sustains on the largest convolution of the
network itself, forward and backward, at the same batch, type and layout.

    python benchmarks/bound.py
    python benchmarks/bound.py --model cifar10-shape --features efficientnet-lite0 \
        --batch-size 8 --micro-batch 4
"""

import math

import torch
from record import interleaved, median, write
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from work import Work, options, prepare

from mmd_ddm.training.losses.mmd import mmd_step


def largest_convolution(work: Work, batch: int) -> tuple[nn.Conv2d, torch.Tensor]:
    """The convolution with most multiply-adds in one call, and an input of its shape."""
    found: list[tuple[float, nn.Conv2d, torch.Size]] = []

    def note(module: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        macs = output.numel() * math.prod(module.weight.shape[1:])
        found.append((macs, module, inputs[0].shape))

    network = work.sampler.denoiser.network
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        work.sampler.denoiser(work.x_T[:batch], 500)
    for hook in hooks:
        hook.remove()
    _, layer, shape = max(found, key=lambda entry: entry[0])
    return layer, torch.randn(shape, device=work.device)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--keep", type=int, default=100, help="network calls not recomputed")
    settings = parser.parse_args()
    work = prepare(settings)
    denoiser, sampler = work.sampler.denoiser, work.sampler
    denoiser.use_fast_layout()
    sampler.recompute, sampler.keep = settings.keep < settings.steps, settings.keep
    layer, images = largest_convolution(work, settings.micro_batch)
    images.requires_grad_()
    if denoiser.autocast is None or work.device.type != "cpu":
        images = images.detach().to(memory_format=torch.channels_last).requires_grad_()

    def convolve() -> None:
        with denoiser.precision():
            output = layer(images)
        output.backward(output.detach())

    def iterate() -> None:
        mmd_step(
            sampler, [work.objective], work.x_T, work.noise, micro_batch=settings.micro_batch
        ).backward()

    flops = {}
    for name, job in (("convolution", convolve), ("iteration", iterate)):
        with FlopCounterMode(display=False) as counter:
            job()
        flops[name] = counter.get_total_flops()
    seconds = interleaved(
        {"convolution": convolve, "iteration": iterate}, settings.repeats, work.device
    )
    throughput = flops["convolution"] / median(seconds["convolution"])
    bound = flops["iteration"] / throughput
    row = {
        "convolution": f"{layer.in_channels} to {layer.out_channels} at {images.shape[-1]} px",
        "GFLOP/s": throughput / 1e9,
        "GFLOP": flops["iteration"] / 1e9,
        "bound seconds": bound,
        "seconds": median(seconds["iteration"]),
        "ratio": median(seconds["iteration"]) / bound,
    }
    write(f"bound-{settings.precision}", settings.out, settings, [row], all=seconds)


if __name__ == "__main__":
    main()
