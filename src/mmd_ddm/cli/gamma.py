"""``mmd-ddm gamma``: the vector that the analytic samplers need, estimated once for a model."""

from typing import Annotated

from mmd_ddm.cli.console import bars, console
from mmd_ddm.cli.options import Data, Device, Model, opt, reading_options
from mmd_ddm.config import ReadConfig

__all__ = ["gamma"]


@reading_options
def gamma(
    read: ReadConfig,
    model: Model,
    data: Data,
    n: Annotated[int, opt("Noisy images for each of the T times.", "-n")] = 1000,
    seed: Annotated[int, opt("Of the images chosen and the noise.")] = 0,
    batch_size: Annotated[int, opt("Images at once.")] = 64,
    device: Device = "auto",
) -> None:
    """Estimate Gamma, which the samplers analytic-dpm and analytic-ddim need, for MODEL.

    It is saved as gamma.json in the folder of MODEL, and is used from there. It costs N network
    calls for each time, N x 1000 in most models. To resume, run the same command again.

    Example: mmd-ddm gamma base --data photos/ -n 1000
    """
    from mmd_ddm.jobs.gamma import estimate_gamma

    found = estimate_gamma(
        model, data, n=n, seed=seed, batch_size=batch_size, read=read, device=device,
        progress=bars,
    )  # fmt: skip
    console.print(f"saved {found.folder}/gamma.json: {n:,} noisy images at each time")
