"""A chain as one file: its pixels are the chain's, whatever the sampler, the family, the batch."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from commands import make_denoiser, mmd_ddm, save_model
from PIL import Image

from mmd_ddm.config import ChainConfig
from mmd_ddm.jobs import export as room
from mmd_ddm.jobs.build import build_sampler, resolve_chain
from mmd_ddm.jobs.export import export
from mmd_ddm.jobs.graph_formats import compare, onnx_drawing
from mmd_ddm.jobs.onnx_graph import ChainWriter
from mmd_ddm.maths.continuous import FlowSchedule, SigmaSchedule
from mmd_ddm.models.families.edm import EDMUNet2D
from mmd_ddm.models.families.flow import FlowUNet2D
from mmd_ddm.models.families.unet2d import UNet2D
from mmd_ddm.samplers.graph import ChainGraph
from mmd_ddm.samplers.registry import SAMPLERS, make_sampler
from mmd_ddm.samplers.table import questions_of

TIMES = (990, 700.5, 402, 211, 30)
DRAWN = (
    "ddpm-small",
    "ddpm-large",
    "analytic-dpm",
    "analytic-ddim",
    "genie",
    "genie-head",
    "consistency",
)
DETERMINISTIC = sorted({*SAMPLERS} - {*DRAWN})


@pytest.fixture(scope="module")
def writer():
    """The tiny network, traced once."""
    graph = ChainGraph(make_sampler("ddim", make_denoiser(), TIMES))
    return ChainWriter(graph.denoiser)


def check(writer, sampler, folder, precision="float32"):
    onnx.save(writer.model(ChainGraph(sampler)), folder / "chain.onnx")
    return compare(onnx_drawing(folder / "chain.onnx"), sampler, precision)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_what_a_chain_asks_for_ends_in_its_image(name, clip, denoiser64):
    sampler = make_sampler(name, denoiser64, TIMES, clip=clip)
    graph = ChainGraph(sampler)
    z = torch.randn(3, *denoiser64.shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        expected = (sampler(z).clamp(-1, 1) + 1) * 127.5
        found = graph(z)
    assert sum(one.time is not None for one in graph.questions) == sampler.nfe
    assert (found - expected).abs().max() <= 0.5 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_deterministic_sampler_is_one_onnx_file(name, clip, writer, tmp_path):
    sampler = make_sampler(name, make_denoiser(), TIMES, clip=clip)
    assert check(writer, sampler, tmp_path).most <= 1


@pytest.mark.parametrize(
    ("name", "options"), [("ddim", {"eta": 0.5}), ("ddpm-small", {}), ("genie", {})]
)
def test_what_adds_noise_or_asks_for_derivatives_is_refused(name, options, denoiser):
    sampler = make_sampler(name, denoiser, TIMES, **options)
    assert questions_of(sampler) is None
    with pytest.raises(ValueError, match=r"cannot be one graph from noise to images.*: take ddim"):
        ChainGraph(sampler)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "schedule", "prediction"),
    [
        (UNet2D, None, "v_prediction"),
        (FlowUNet2D, FlowSchedule(3.0), "flow_prediction"),
        (EDMUNet2D, SigmaSchedule(), "edm"),
    ],
)
def test_every_family_is_one_onnx_file(family, schedule, prediction, tmp_path):
    tiny = make_denoiser()
    denoiser = family(tiny.network, schedule or tiny.schedule, prediction, shape=tiny.shape)
    writer = ChainWriter(ChainGraph(build_sampler(ChainConfig(5), denoiser)).denoiser)
    for chain in (ChainConfig(5), ChainConfig(6, "unipc")):
        assert check(writer, build_sampler(chain, denoiser), tmp_path).most <= 1


@pytest.mark.slow
def test_classes_and_guidance(tiny_unet, schedule, tmp_path):
    denoiser = UNet2D(tiny_unet(num_class_embeds=4), schedule, shape=(1, 8, 8))
    denoiser.classes, denoiser.null_label = ("a", "b", "c"), 3
    writer = ChainWriter(ChainGraph(build_sampler(ChainConfig(5), denoiser)).denoiser, half=True)
    plain = build_sampler(ChainConfig(5), denoiser)
    guided = build_sampler(ChainConfig(5, guidance=2.5), denoiser)
    for sampler in (plain, guided):
        found = check(writer, sampler, tmp_path, "float16")
        assert found.mean < 0.2
    noise, labels = torch.randn(6, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2, 2])
    draw = onnx_drawing(tmp_path / "chain.onnx")
    assert (draw(noise, labels) != draw(noise, labels.flip(0))).any()


@pytest.mark.slow
def test_the_folder_runs_with_numpy_and_onnxruntime_alone(tmp_path):
    save_model(tmp_path / "model", ChainConfig(3))
    done = mmd_ddm(tmp_path, "export", "model", "--out", "deploy")
    assert done.code == 0, done.err
    assert "grey levels" in done.out
    assert {path.name for path in (tmp_path / "deploy").iterdir()} == {
        "model.onnx", "run.py", "README.md",
    }  # fmt: skip
    runner = (tmp_path / "deploy/run.py").read_text()
    assert len(runner.splitlines()) <= 30
    assert {*(line.split()[1] for line in runner.splitlines() if line.startswith("import"))} <= {
        "struct", "sys", "zlib", "numpy", "onnxruntime",
    }  # fmt: skip
    words = [sys.executable, "deploy/run.py", "5", "7"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    with Image.open(tmp_path / "images.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (24, 24)  # 5 images in 3 x 3
    noise = np.random.default_rng(7).standard_normal((5, 1, 8, 8), np.float32)
    drawn = onnx_drawing(tmp_path / "deploy/model.onnx")(torch.from_numpy(noise), None)
    assert (sheet[:8, 8:16] == drawn[1, 0]).all()
    assert (sheet[8:16, 8:16] == drawn[4, 0]).all()
    card = (tmp_path / "deploy/README.md").read_text()
    assert "3 ddim steps at 833, 500, 166" in card
    assert "python run.py 16" in card
    again = mmd_ddm(tmp_path, "export", "model", "--out", "deploy")
    assert (again.code, "deploy exists: give --out a new folder" in again.err) == (2, True)


@pytest.mark.slow
def test_torch_export(tmp_path):
    denoiser = save_model(tmp_path / "model", ChainConfig(3, "unipc"))
    found = export(str(tmp_path / "model"), tmp_path / "deploy", to="torch-export")
    assert found.record["most"] <= 1
    program = torch.export.load(tmp_path / "deploy/model.pt2").module()
    chain = resolve_chain(ChainConfig(3, "unipc"), denoiser)
    assert asdict(chain)["sampler"] == "unipc"
    assert program(noise=torch.randn(70, 1, 8, 8)).shape == (70, 1, 8, 8)


@pytest.mark.slow
def test_openvino(tmp_path):
    save_model(tmp_path / "model", ChainConfig(3))
    found = export(str(tmp_path / "model"), tmp_path / "deploy", to="openvino")
    assert found.record["most"] <= 1
    names = {path.name for path in (tmp_path / "deploy").iterdir()}
    assert names == {"model.xml", "model.bin", "README.md"}


def test_other_pixels_are_refused(denoiser):
    sampler = build_sampler(ChainConfig(5), denoiser)

    def wrong(noise, label):
        return np.zeros(noise.shape, np.uint8)

    with pytest.raises(ValueError, match=r"the file draws other pixels than the chain .*float32"):
        compare(wrong, sampler, "float16")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "tflite"}, "unknown format 'tflite'; choose one of onnx, torch-export, openvino"),
        ({"precision": "int8"}, "--precision is float32 or, but for torch-export, float16"),
        ({"to": "torch-export", "precision": "float16"}, "but for torch-export"),
    ],
)
def test_what_cannot_be_asked_for(options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        export("fashion-mnist", tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnx needs onnx: pip install 'mmd-ddm\[export\]'"):
        export("fashion-mnist", tmp_path / "new")
    with pytest.raises(ValueError, match=r"pip install 'mmd-ddm\[export\]'"):
        export("fashion-mnist", tmp_path / "new", to="openvino")
