"""Times searched for a model, without training: what ``mmd-ddm times`` runs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.images import load_images
from mmd_ddm.jobs.build import Model, load_model, say_notes
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.maths.random import generator
from mmd_ddm.maths.search import cheapest_path, elbo_costs, straight_costs
from mmd_ddm.maths.times import check_times, select_times
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.progress import Progress, Update, silent

__all__ = ["RULES", "search_times"]

RULES = ("gits", "elbo", "arctan")
_LATER = 1.15  # GITS's factor of later leaps


@torch.no_grad()
def search_times(
    model: str | Model,
    steps: Sequence[int],
    *,
    rule: str = "gits",
    data: str = "",
    n: int = 64,
    grid: int = 60,
    seed: int = 0,
    read: ReadConfig | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> dict[int, tuple[float, ...]]:
    """The best times of this model at each number of steps; a chain takes them as ``times``.

    One pass of n grid network calls serves all of them.

    Args:
        model: without classes.
        steps: numbers of steps.
        rule: ``gits``, along the model's own trajectories; ``elbo``, of noised images, ending at
            time 0; ``arctan``, a formula (the spacing of that name).
        data: images, for ``elbo``.
        n: trajectories or images.
        grid: times that are chosen from.
        seed: of the noise.
        read: how images are read.
        device: where to compute, for a model that is named.
        progress: told what is done.

    Raises:
        ValueError: an unknown rule, more steps than times to choose from, a model of classes, or
            one that begins without any image.
    """
    if rule not in RULES:
        raise ValueError(f"rule is one of {', '.join(RULES)}; got {rule!r}")
    denoiser = load_model(model, device).denoiser
    say_notes(denoiser, progress)
    schedule = denoiser.schedule
    if rule == "arctan":
        return {k: select_times(rule, k, len(schedule), schedule) for k in steps}
    if denoiser.classes:
        raise ValueError("times are searched for models without classes")
    whole = np.linspace(len(schedule) - 1, 0, grid).round().astype(int).tolist()
    times = list(schedule.place([*dict.fromkeys(whole)]))
    if schedule(times[0])[0] == 0:
        raise ValueError(
            f"at t = {times[0]:g} nothing of an image is left, and no leap from there has a cost: "
            "take rule arctan"
        )
    with progress.bar("times", len(times)) as bar:
        if rule == "gits":
            costs, leaps = _trajectories(denoiser, times, n, seed, bar), 0
        else:
            pixels = load_images(data, denoiser.shape, read).subset(n).pixels
            costs, leaps = _bound(denoiser, times, from_uint8(pixels), seed, bar), 1
    found = {}
    for k in steps:
        path = cheapest_path(costs, k - leaps, _LATER if rule == "gits" else 1.0)
        found[k] = check_times([times[i] for i in path[:k]], schedule)
    return found


def _trajectories(
    denoiser: Denoiser, times: Sequence[float], n: int, seed: int, bar: Update
) -> Tensor:
    """GITS's costs; the teacher is DDIM on all of the times, and the data is the last state."""
    z = torch.randn((n, *denoiser.shape), generator=generator(seed, 0, 0, "times"))
    x_t = denoiser.schedule.start(times[0]) * z.to(denoiser.device)
    states, slopes = [], []
    for t, s in zip(times, (*times[1:], None), strict=True):
        x_0, eps = denoiser.predict(x_t, t)
        states.append(x_t.cpu() / denoiser.schedule(t)[0])
        slopes.append(eps.cpu())
        alpha, sigma = denoiser.schedule(s)
        x_t = alpha * x_0 + sigma * eps
        bar(advance=1)
    states.append(x_t.cpu())
    slopes.append(slopes[-1])
    rho = states[0].new_tensor([denoiser.schedule.rho(t) for t in (*times, None)])
    return straight_costs(torch.stack(states), torch.stack(slopes), rho)


def _bound(
    denoiser: Denoiser, times: Sequence[float], x_0: Tensor, seed: int, bar: Update
) -> Tensor:
    """The bound's costs, of noised images."""
    errors, x_0 = [], x_0.to(denoiser.device)
    for i, t in enumerate(times):
        draw = generator(seed, 0, i, "times", denoiser.device)
        z = torch.randn(x_0.shape, generator=draw, device=denoiser.device)
        alpha, sigma = denoiser.schedule(t)
        found, _ = denoiser.predict(alpha * x_0 + sigma * z, t)
        errors.append((found - x_0).square().sum((1, 2, 3)).mean())
        bar(advance=1)
    snr = x_0.new_tensor([denoiser.schedule.rho(t) ** -2 for t in times])
    return elbo_costs(snr, torch.stack(errors)).cpu()
