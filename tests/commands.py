"""The command line as a person meets it, and the small things it is given."""

import contextlib
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.optim.optimizer import register_optimizer_step_post_hook

from mmd_ddm.cli import main
from mmd_ddm.cli.console import console
from mmd_ddm.config import ChainConfig, NetworkConfig
from mmd_ddm.features.registry import MultiLevel
from mmd_ddm.jobs.build import build_network, build_sampler, load_model, resolve_chain
from mmd_ddm.maths.schedules import NoiseSchedule
from mmd_ddm.models.export import export
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.gamma import Gamma
from mmd_ddm.models.genie_head import GenieHead
from mmd_ddm.models.protocol import Denoiser
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.samplers.table import table_of

CACHE = ".cache"
# The console took its width when it was imported, before COLUMNS is set below.
console.width = 200
NETWORK = (
    "--set", "network.channels=8,16", "--set", "network.attention=false,true",
    "--set", "network.attention_head_dim=8", "--set", "network.norm_num_groups=4",
)  # fmt: skip


JUDGE = "encoder:judge.safetensors"
SMALL = (
    "--features", "pixels", "--set", f"judges={JUDGE}", "--set", "select.samples=4",
    "--set", "judge_samples=8", "--iterations", 1, "--batch-size", 4,
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def mmd_ddm(folder: Path, *words: object) -> Done:
    """Run ``mmd-ddm`` with these words in this folder."""
    out, err = io.StringIO(), io.StringIO()
    environment = {"MMD_DDM_CACHE": str(folder / CACHE), "COLUMNS": "200"}
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["mmd-ddm", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            return Done(end.code or 0, out.getvalue(), err.getvalue())
    raise AssertionError("the command line did not say how it ended")


@contextlib.contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """Within, Ctrl-C comes as soon as an optimiser has taken so many steps."""
    taken = itertools.count(1)

    def press(*_: object) -> None:
        if next(taken) == steps:
            signal.raise_signal(signal.SIGINT)

    handle = register_optimizer_step_post_hook(press)
    try:
        yield
    finally:
        handle.remove()


class Counting:
    """A progress that counts the images that are drawn."""

    def __init__(self) -> None:
        self.drawn, self.said = 0, []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        def update(*, done: int | None = None, advance: int = 0, note: str = "") -> None:
            self.drawn += advance if title == "images" or title.endswith(" steps") else 0

        yield update


def digits(n: int) -> np.ndarray:
    """Handwritten digits, [n, 8, 8], uint8."""
    return (load_digits().images[:n] * 15.9375).round().astype(np.uint8)


def make_denoiser(
    channels: int = 1, prediction: str = "epsilon", schedule: NoiseSchedule | None = None
) -> Denoiser:
    """An untrained network of 8 x 8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = NetworkConfig((8, 16), (False, True), attention_head_dim=8, norm_num_groups=4)
        network = build_network(config, (channels, 8, 8)).eval()
    schedule = schedule or NoiseSchedule.linear()
    return UNet2D(network, schedule, prediction, shape=(channels, 8, 8))


def save_encoder(path: Path, seed: int) -> None:
    """Write the weights of a small feature space: the bundled one's covariance takes seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(MultiLevel(1, (4, 8)).state_dict(), path)


def save_model(folder: Path, chain: ChainConfig | None = None, **options) -> Denoiser:
    """Write that network as a diffusers folder, finetuned for a chain or not."""
    denoiser = make_denoiser(**options)
    config = {"prediction_type": denoiser.prediction, "clip_sample": False}
    if chain is None:
        export(denoiser, config, None, folder)
    else:
        resolved = resolve_chain(chain, denoiser)
        table = table_of(build_sampler(resolved, denoiser))
        export(denoiser, config, asdict(resolved), folder, table=table)
    return denoiser


def save_data(folder: Path, n: int, spaces: tuple[str, ...] = ("judge",)) -> None:
    """Fill a folder to train in: n images, spaces to judge and to select in."""
    np.save(folder / "digits.npy", digits(n))
    for seed, space in enumerate(spaces):
        save_encoder(folder / f"{space}.safetensors", seed)


def save_place(folder: Path, n: int, spaces: tuple[str, ...] = ("judge",)) -> Denoiser:
    """Fill a folder to run commands in: the same, and a base model, which is given back."""
    save_data(folder, n, spaces)
    return save_model(folder / "base")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below with its bytes, every folder; without the cache."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if CACHE not in path.parts
    }


def pictures(folder: Path) -> np.ndarray:
    """The numbered images of a folder, [n, h, w], in their order."""
    return np.stack([np.asarray(Image.open(p)) for p in sorted(folder.glob("[0-9]*.png"))])


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def make_head():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GenieHead(1, 8, 4)


def forge_head(folder):
    """A head as the verb would have written it, with an answer that is not 0."""
    head = make_head()
    torch.nn.init.normal_(
        head.conv_out.weight, std=0.01, generator=torch.Generator().manual_seed(0)
    )
    head.save(folder / "base", weights_sha256(load_model(str(folder / "base")).denoiser.network))


def forge_gamma(folder, **changes):
    """A complete file, as the verb would have written it."""
    network = load_model(str(folder / "base")).denoiser.network
    values = tuple(np.linspace(0.1, 0.99, 1000))
    found = Gamma(weights_sha256(network), "digits.npy", "d", 2, 0, values=values)
    found.save(folder / "base" / "gamma.json")
    path = folder / "base" / "gamma.json"
    path.write_text(json.dumps({**read(path), **changes}))


def places(on, image, scale=1):
    """Top left corners at which the image is found, as [row, column]."""
    wanted = np.asarray(image).repeat(scale, 1).repeat(scale, 2).transpose(1, 2, 0)
    wanted = np.broadcast_to(wanted, (*wanted.shape[:2], 3))
    sheet = np.asarray(on.convert("RGB"))
    h, w = wanted.shape[:2]
    at = np.argwhere(np.ones((sheet.shape[0] - h + 1, sheet.shape[1] - w + 1)))
    # A few pixels leave few places to look at.
    for y, x in np.random.default_rng(0).integers((h, w), size=(100, 2)):
        at = at[(sheet[at[:, 0] + y, at[:, 1] + x] == wanted[y, x]).all(1)]
    return [[y, x] for y, x in at.tolist() if (sheet[y : y + h, x : x + w] == wanted).all()]
