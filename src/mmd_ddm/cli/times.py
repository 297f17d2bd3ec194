"""``mmd-ddm times``: times searched for a model, which every other verb takes as ``--times``."""

from typing import Annotated

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Device, Model, opt
from mmd_ddm.settings import whole_numbers

__all__ = ["times"]


def times(
    model: Model,
    steps: Annotated[str, opt("How many: 5, or 3,5,8.")] = "5",
    rule: Annotated[str, opt("gits, elbo or arctan.")] = "gits",
    data: Annotated[str, opt("Images, for elbo.")] = "",
    n: Annotated[int, opt("Trajectories, or images.", "-n")] = 64,
    device: Device = "auto",
) -> None:
    """Search the times of MODEL without training: a line of --times for each number of steps.

    Example: mmd-ddm times fashion-mnist --steps 5,10 --rule gits
    """
    from mmd_ddm.jobs.times import search_times

    found = search_times(
        model, whole_numbers(steps), rule=rule, data=data, n=n, device=device, progress=bars
    )
    for k, chosen in found.items():
        console.print(f"{k}: --times {','.join(f'{t:g}' for t in chosen)}", soft_wrap=True)
