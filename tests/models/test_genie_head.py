"""GENIE's head: learns the exact derivative; is kept, resumed, refused, exported."""

import itertools
import shutil

import pytest
import torch
from commands import (
    SMALL,
    digits,
    forge_head,
    make_head,
    mmd_ddm,
    save_encoder,
    save_model,
    save_place,
)
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_hook

from mmd_ddm.config import HeadConfig
from mmd_ddm.jobs.build import load_model
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.models.genie_head import GenieHead, derivative, read_head
from mmd_ddm.runs.fingerprint import weights_sha256
from mmd_ddm.samplers.base import Walk
from mmd_ddm.samplers.registry import make_sampler
from mmd_ddm.training.genie_head import distil
from mmd_ddm.training.losses.derivative import distillation_loss

TIMES = (900, 650, 400.5, 150)


class Smooth(torch.nn.Module):
    """A network whose derivative 200 iterations can learn."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.conv_norm_out = torch.nn.Identity()
        self.out = torch.nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x_t, t):
        time = torch.cos(t / 300)[:, None, None, None]
        return self.out(self.conv_norm_out(torch.tanh(self.conv(x_t) + time)))


def test_distillation_lowers_the_error_against_the_exact_derivative(schedule, tmp_path):
    """On noise that it has not seen; before it, the head answers 0, and the sampler is DDIM."""
    torch.manual_seed(0)
    denoiser = UNet2D(Smooth(), schedule, shape=(1, 8, 8))
    pixels = torch.from_numpy(digits(64))[:, None]
    head = denoiser.beside["head"] = make_head()  # a module, but none of its own

    def error():
        with torch.no_grad():
            draw = torch.Generator().manual_seed(99)
            return distillation_loss(denoiser, head, from_uint8(pixels), draw).item()

    z = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def steps():
        """From noisy images, as it was trained on, and not the first, which is DDIM's."""
        found = {}
        for name in ("ddim", "genie", "genie-head"):
            sampler = make_sampler(name, denoiser, TIMES)
            x_t = make_sampler(name, denoiser, TIMES[1:]).diffuse(from_uint8(pixels), z)
            with torch.no_grad():
                found[name] = sampler.step(x_t, *TIMES[1:3], Walk(denoiser, False), None)
        return found

    before_it = steps()
    torch.testing.assert_close(before_it["genie-head"], before_it["ddim"])
    untrained, events = error(), []
    config = HeadConfig(iterations=200, batch_size=16, lr=1e-2, ema_decay=0.9)
    before = weights_sha256(denoiser.network)
    distil(
        config, denoiser, head, pixels, tmp_path / "state.pt", lambda **event: events.append(event)
    )
    assert weights_sha256(denoiser.network) == before
    assert [event["step"] for event in events] == list(range(10, 201, 10))
    assert error() < 0.3 * untrained
    ends = steps()
    far = torch.dist(ends["ddim"], ends["genie"])
    assert torch.dist(ends["genie-head"], ends["genie"]) < 0.7 * far


def test_with_an_exact_head_it_is_genie(denoiser64):
    schedule = denoiser64.schedule

    class Exact(GenieHead):
        def forward(self, x_t, times, eps, features, rho):
            assert features.shape == (2, 8, 8, 8)
            t = times[0].item()
            alpha_t, sigma_t = schedule(t)
            assert rho[0].item() == pytest.approx(sigma_t / alpha_t)
            dx = alpha_t * (eps - sigma_t * x_t)
            return derivative(denoiser64, x_t, t, dx, 1 / schedule.rho_slope(t))

    denoiser64.beside["head"] = Exact(1, 8, 4)
    draw = torch.Generator().manual_seed(0)
    x_T = torch.randn(2, 1, 8, 8, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        walks = [make_sampler(n, denoiser64, TIMES)(x_T) for n in ("genie", "genie-head")]
    torch.testing.assert_close(*walks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    save_place(folder, 12)
    return folder


def distilled(folder, *words):
    few = ("--iterations", 4, "--batch-size", 2, "--set", "save_every=2")
    return mmd_ddm(folder, "genie-head", "base", "--data", "digits.npy", *few, *words)


def drawn(folder, model):
    words = ("sample", model, "-n", 2, "--steps", 3, "--sampler", "genie-head", "--out", "new")
    return mmd_ddm(folder, *words)


def refused(done, said):
    assert done.code == 2
    assert done.err.startswith("mmd-ddm: error: ")
    assert done.err.count("\n") == 1
    assert said in done.err


def test_the_verb_trains_resumes_and_is_used(folder):
    """Stopped at its second checkpoint and repeated, it ends with the same head."""
    assert distilled(folder).code == 0
    kept = folder / "base" / "genie-head"
    whole = load_file(kept / "head.safetensors")
    assert any(value.abs().max() > 0 for key, value in whole.items() if "conv_out" in key)
    shutil.rmtree(kept)

    calls = itertools.count(1)

    def stop(module, *_):
        if isinstance(module, GenieHead) and next(calls) > 3:
            raise ValueError("stopped")

    hook = register_module_forward_hook(stop)
    try:
        refused(distilled(folder), "stopped")
    finally:
        hook.remove()
    assert not (kept / "head.safetensors").exists()
    assert distilled(folder).code == 0
    resumed = load_file(kept / "head.safetensors")
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())
    assert drawn(folder, "base").code == 0
    refused(distilled(folder, "--lr", 1), "delete base/genie-head")


def test_a_finetuned_model_keeps_the_head_of_its_chain(folder):
    forge_head(folder)
    save_encoder(folder / "judge.safetensors", 0)
    words = ("finetune", "base", "--data", "digits.npy", "--out", "run", "--steps", 3, *SMALL)
    rate = ("--set", "lr=0.1", "--set", "select.every=0")
    done = mmd_ddm(folder, *words, "--sampler", "genie-head", *rate)
    assert done.code == 0, done.err
    heads = [
        read_head(source, weights_sha256(load_model(str(source)).denoiser.network))
        for source in (folder / "base", folder / "run" / "model")
    ]
    assert heads[0].distilled_from == heads[1].distilled_from
    for ours, theirs in zip(*(head.parameters() for head in heads), strict=True):
        assert torch.equal(ours, theirs)


def test_a_head_of_another_model_and_none_of_ours(folder):
    forge_head(folder)
    shutil.copytree(folder / "base", folder / "other")
    save_model(folder / "trained", prediction="sample")
    network = load_model(str(folder / "trained")).denoiser.network
    with torch.no_grad():
        network.conv_in.bias += 1
    network.save_pretrained(folder / "other" / "unet")
    refused(drawn(folder, "other"), "is of another model: delete other/genie-head, then `mmd-ddm")
    file = folder / "other" / "genie-head" / "head.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    refused(drawn(folder, "other"), "head.safetensors is not a GENIE head of ours")
    shutil.rmtree(file.parent)
    refused(drawn(folder, "other"), "no GENIE head of other: distil it with `mmd-ddm genie-head")
