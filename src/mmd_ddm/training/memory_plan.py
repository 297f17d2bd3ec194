r"""How an iteration fits: the micro-batch, and how many network calls keep their activations.

One small step is measured: what autograd saves for two images, and the seconds of a network call
and of the extractors at two sizes. With N images, K network calls, L of them with a gradient, a
micro-batch of m images and j calls that keep their activations,

    bytes   = trained + N (image + j call) + m work
    seconds = N/m ((K + L - j) forward(m) + L backward(m) + 2 extract(m) + ...)

where a call costs a fixed time and a time an image. Bytes are counted from the tensors that are
saved for the backward pass, which is exact and the same on every device; what a call needs besides
is measured on a GPU, and taken as a quarter more on a CPU.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from mmd_ddm.features.base import FeatureExtractor
from mmd_ddm.models.parts import quiet
from mmd_ddm.models.valueless import Valueless, without_values
from mmd_ddm.runs.launch import local_world
from mmd_ddm.samplers.base import Sampler
from mmd_ddm.training.memory_count import call_once, count, extract_once, trained_bytes

__all__ = ["Choice", "Costs", "choices", "choose", "free_memory", "halves_of", "measure", "usable"]

# The rest is for fragments, and for what other processes come to need.
_SHARE = {"cpu": 0.5, "cuda": 0.9}
_MOST = {"cpu": 64, "cuda": 512}  # images at once; the caches of a CPU hold no more


class Line(NamedTuple):
    """A cost that is affine in the images: ``fixed + each * n``."""

    fixed: float
    each: float

    def __call__(self, n: int) -> float:
        """The cost of n images at once."""
        return self.fixed + self.each * n


@dataclass(frozen=True)
class Choice:
    """How the iterations are run.

    Attributes:
        micro_batch: images at once.
        keep: network calls that keep their activations; the others are recomputed.
        recompute: False keeps all, the extractors' too.
    """

    micro_batch: int
    keep: int
    recompute: bool = True


@dataclass(frozen=True)
class Costs:
    """What was measured, in bytes and seconds.

    Attributes:
        calls: network calls of the chain.
        trained_calls: those of them that take a gradient.
        most: images at once beyond which nothing is gained.
        trained: bytes for gradients, optimiser and averages.
        image: bytes of one image's latents and kernel values.
        call: bytes that one image's activations take in one call.
        extractor: bytes that they take in the extractors.
        work: bytes of one image of the micro-batch that is being computed.
        forward: seconds of a call.
        backward: seconds of its backward pass.
        extract: seconds of the extractors, forward.
        extract_backward: seconds of theirs.
    """

    calls: int
    trained_calls: int
    most: int
    trained: int
    image: int
    call: int
    extractor: int
    work: int
    forward: Line
    backward: Line
    extract: Line
    extract_backward: Line

    def memory(self, n: int, choice: Choice) -> int:
        """Bytes that an iteration of n images needs, beside what is held now."""
        kept = choice.keep * self.call + (not choice.recompute) * self.extractor
        return self.trained + n * (self.image + kept) + min(n, choice.micro_batch) * self.work

    def seconds(self, n: int, choice: Choice) -> float:
        """Seconds that it takes."""
        m, again = choice.micro_batch, self.trained_calls - choice.keep
        one = (self.calls + again) * self.forward(m) + self.trained_calls * self.backward(m)
        one += (1 + choice.recompute) * self.extract(m) + self.extract_backward(m)
        return n / m * one

    def most_images(self, budget: int) -> int:
        """The largest batch that fits, image by image."""
        return max(0, int(budget - self.trained - self.work) // self.image)


def choices(costs: Costs, micro_batch: int) -> list[Choice]:
    """All that can be done with a micro-batch, what recomputes least first."""
    some = [Choice(micro_batch, keep) for keep in range(costs.trained_calls, -1, -1)]
    return [Choice(micro_batch, costs.trained_calls, recompute=False), *some]


def choose(
    costs: Costs, n: int, budget: int, *, micro_batch: int = 0, recompute: bool = True
) -> Choice:
    """The fastest choice that fits.

    Args:
        costs: as measured.
        n: images of the batch, or this rank's share of them.
        budget: bytes that may be taken.
        micro_batch: the wanted one, which is halved only until it fits; 0 leaves it open.
        recompute: False keeps all activations.

    Raises:
        ValueError: nothing fits, with what would.
    """
    halves = halves_of(min(micro_batch or costs.most, n))
    for group in [[m] for m in halves] if micro_batch else [halves]:
        every = [c for m in group for c in choices(costs, m) if recompute or not c.recompute]
        fitting = [c for c in every if costs.memory(n, c) <= budget]
        if fitting:
            return min(fitting, key=lambda c: (costs.seconds(n, c), -c.micro_batch))
    least = costs.memory(n, Choice(1, 0) if recompute else Choice(1, costs.trained_calls, False))
    most = costs.most_images(budget)
    ways = [f"a batch_size of {most}"] * (most > 1) + ["recompute = true"] * (not recompute)
    raise ValueError(
        f"a batch of {n} in {costs.calls} network calls needs {_gib(least)} even at micro_batch 1 "
        f"and {_gib(budget)} may be taken; what would fit: "
        f"{' or '.join(ways) or 'a smaller network, or a larger device'}"
    )


def measure(sampler: Sampler, phis: Sequence[FeatureExtractor]) -> Costs:
    """Measure one small step of this chain and these extractors, on their device.

    Args:
        sampler: the chain.
        phis: what is optimised in.
    """
    denoiser, device = sampler.denoiser, sampler.denoiser.device
    denoiser.use_fast_layout()
    n = 16 if device.type == "cpu" else 64
    if denoiser.latent_shape == denoiser.shape:
        counts = count(sampler, phis)
    else:  # of which not even three images may fit
        twin = without_values(sampler)
        with quiet(), Valueless():
            twin.denoiser.network.to(denoiser.autocast)  # which meta devices know nothing of
            counts = count(twin, [without_values(phi) for phi in phis])
        n = min(n, max(1, free_memory(device) // counts.work))
    draw = torch.Generator(device).manual_seed(0)
    x = torch.randn((n, *denoiser.latent_shape), generator=draw, device=device)

    def call(m: int) -> Tensor:
        return call_once(sampler, x[:m])

    def extract(m: int) -> Tensor:
        return extract_once(phis, denoiser.to_loss(x[:m].requires_grad_()))

    work = counts.work
    if device.type == "cuda":
        work = max(_work(call, n, device), _work(extract, n, device))
    seconds = (*_timed(call, n, device), *_timed(extract, n, device))
    for p in denoiser.network.parameters():
        p.grad = None
    most = _MOST.get(device.type, 64)
    return Costs(
        counts.calls, counts.trained_calls, most, trained_bytes(denoiser), counts.image,
        counts.call, counts.extract, work, *seconds,
    )  # fmt: skip


def free_memory(device: torch.device) -> int:
    """Bytes that may be taken there by this process."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = psutil.virtual_memory().available
        group = Path("/sys/fs/cgroup")  # a container's limit
        try:
            limit, used = ((group / f"memory.{k}").read_text() for k in ("max", "current"))
            free = min(free, int(limit) - int(used))
        except (OSError, ValueError):
            pass  # no container, or no limit
        free //= local_world()
    return usable(free, device.type)


def usable(free: int, kind: str = "cuda") -> int:
    """What may be taken of so many bytes of a device of that kind."""
    return int(_SHARE.get(kind, 0.5) * free)


def halves_of(n: int) -> list[int]:
    """This number and its halves down to 1, rounded up."""
    sizes = [n]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _work(job: Callable[[int], Tensor], n: int, device: torch.device) -> int:
    """Bytes an image that a call takes on a GPU while it, and its backward pass, are computed."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    job(n).sum().backward()
    return (torch.cuda.max_memory_allocated(device) - before) // n


def _timed(job: Callable[[int], Tensor], n: int, device: torch.device) -> tuple[Line, Line]:
    """Seconds forward and backward, from the best of three at n and at a quarter of n images."""
    times = [
        [min(pair) for pair in zip(*(_once(job, m, device) for _ in range(3)), strict=True)]
        for m in (max(1, n // 4), n)
    ]
    lines = []
    for few, many in zip(*times, strict=True):
        each = max(0.0, many - few) / (n - n // 4)  # of one image, all of it is fixed
        lines.append(Line(max(0.0, many - each * n), each))
    return lines[0], lines[1]


def _once(job: Callable[[int], Tensor], m: int, device: torch.device) -> tuple[float, float]:
    """Seconds forward and backward."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    moments = [clock()]
    with torch.enable_grad():
        output = job(m).sum()
        _finish(device)
        moments.append(clock())
        output.backward()
    _finish(device)
    moments.append(clock())
    return moments[1] - moments[0], moments[2] - moments[1]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
