"""Pipelines that are read by one recorded call: two iterations, K calls, the same pixels."""

import numpy as np
import pytest
import torch
from pipelines import load_pipeline
from tiny_pipelines import TINY, tiny_pipeline

from mmd_ddm.config import ChainConfig, ConditionConfig, FinetuneConfig, ObjectiveConfig, SelectConfig
from mmd_ddm.jobs.build import build_sampler, load_model
from mmd_ddm.jobs.train import train
from mmd_ddm.maths.random import SAMPLE, image_seeds

K = 4
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and diffusers, of themselves


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def their_images(pipeline, n, steps, **options):
    """As documented, image i from seed i; the values before they are rounded, and the calls."""
    network, calls = getattr(pipeline, "transformer", None) or pipeline.unet, []
    network.register_forward_hook(lambda *_: calls.append(1))
    generators = [torch.Generator().manual_seed(s) for s in image_seeds(0, SAMPLE, n)]
    images = pipeline(
        **options, num_inference_steps=steps, generator=generators, output_type="np"
    ).images
    return np.asarray(images).transpose(0, 3, 1, 2), len(calls)


def asked(name, n):
    if name == "LDM":
        return {"batch_size": n}
    if name == "DiT":
        return {"class_labels": list(range(n)), "guidance_scale": 1.0}
    plain = {"prompt": [""] * n, "height": 32, "width": 32}
    more = {} if name == "Latent Consistency Model" else {"guidance_scale": 1.0}
    binned = {"use_resolution_binning": False} if name in ("PixArt", "Sana") else {}
    return plain | more | binned


@pytest.mark.parametrize("name", TINY)
def test_what_is_finetuned_is_drawn_alike_by_diffusers(name, tmp_path):
    tiny_pipeline(name).save_pretrained("base")
    size = load_model("base").denoiser.shape[1]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, size, size, 3), dtype=np.uint8)
    np.savez("data.npz", images=pixels, labels=np.arange(40) % 2)
    config = FinetuneConfig(
        "base", "data.npz", chain=ChainConfig(steps=K), iterations=2, batch_size=2, lr=1e-3,
        objective=ObjectiveConfig(features=("pixels",)), judges=("random",), compare_steps=(),
        select=SelectConfig(every=0, features="frequencies"),
        condition=ConditionConfig(match="ignore"),
    )  # fmt: skip
    train(config, tmp_path / "run")
    model = load_model("run")
    pipeline = load_pipeline(tmp_path / "run/model", trust_remote_code=True)
    assert type(pipeline) is type(tiny_pipeline(name))
    theirs, calls = their_images(pipeline, 3, K, **asked(name, 3))
    assert calls == K
    ours = build_sampler(model.chain, model.denoiser).draw(3, seed=0).numpy()
    assert np.abs((theirs * 255).round() - ours).max() <= 1
    base = load_model("base").denoiser.network.state_dict()
    assert any(not torch.equal(w, base[k]) for k, w in model.denoiser.network.state_dict().items())
