"""The examples run, and show what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import save_place
from diffusers import DiffusionPipeline
from PIL import Image

import mmd_ddm

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_toy_2d_improves_in_both_kernels(tmp_path):
    picture = tmp_path / "toy.png"
    arguments = ["--pretrain", "300", "--finetune", "60", "--plot", str(picture)]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "toy_2d.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {
        name: (float(optimised), float(judge))
        for name, optimised, judge in re.findall(
            r"^(.+?) {2,}(-?[\d.]+) +(-?[\d.]+)$", done.stdout, re.MULTILINE
        )
    }
    base, finetuned = rows["base, 3 steps"], rows["finetuned, 3 steps"]
    assert finetuned[0] < 0.5 * base[0]
    assert finetuned[1] < 0.7 * base[1]
    assert max(map(abs, rows["floor (real, real)"])) < 0.1 * finetuned[1]
    falls = [float(fall) for fall in re.findall(r"([\d.]+) % \(", done.stdout)]
    ratios = [b / a for a, b in zip(base, finetuned, strict=True)]
    assert falls == pytest.approx([100 * (1 - ratio) for ratio in ratios], abs=0.1)
    with Image.open(picture) as image:
        assert image.width > 2 * image.height


SMALL = (
    ('load("fashion-mnist")', 'load("base")'),
    ('heldout=mmd.images("fashion-mnist-heldout")', ""),
    ('images("fashion-mnist")', 'images("digits.npy")'),
    ('"encoder", "denoiser"', '"pixels"'),
    ('judges=["efficientnet-lite0"], judge_samples=600', 'judges=["random"], judge_samples=4'),
    (", progress=mmd.bars", ""),
)


def run_small(name, folder, monkeypatch, *changes):
    """An example at the size of a test; its code as it stands."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MMD_DDM_CACHE", str(folder / "cache"))
    save_place(folder, 80)
    code = whole = (EXAMPLES / name).read_text(encoding="utf-8")
    for large, small in (*SMALL, *changes):
        assert large in code
        code = code.replace(large, small)
    exec(compile(code, name, "exec"), {})
    return whole


@pytest.mark.slow
def test_library_does_the_demos_job(tmp_path, monkeypatch):
    code = run_small(
        "library.py", tmp_path, monkeypatch,
        ('"every": 35, "samples": 300', '"features": "encoder", "samples": 4'),
        ("iterations=140, batch_size=32", "iterations=2, batch_size=4"),
        ("runs=[result], n=600", 'runs=[result], n=4, features=["random"]'),
    )  # fmt: skip
    assert len(code.splitlines()) <= 25
    page = (tmp_path / "library-run" / "report.html").read_text(encoding="utf-8")
    assert "unipc" in page
    assert (tmp_path / "library-run" / "bench" / "bench.md").is_file()
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "library-run" / "pipeline")
    assert pipeline.scheduler.config["_mmd_ddm"]["steps"] == 5


@pytest.mark.slow
def test_one_model_draws_at_four_numbers_of_steps(tmp_path, monkeypatch):
    run_small(
        "many_budgets.py", tmp_path, monkeypatch,
        ('recipe="auto"', 'recipe="auto", iterations=2, batch_size=4'),
        ('"every": 0', '"every": 0, "features": "frequencies"'),
    )  # fmt: skip
    for steps in (3, 5, 8, 12):
        with Image.open(tmp_path / f"many-run/{steps}.png") as image:
            assert image.size == (8, 8)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """In a kernel, as in Jupyter; every public name that it asks for is one."""
    run = (
        "import sys, nbformat; from nbclient import NotebookClient\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "NotebookClient(notebook, timeout=600, kernel_name='python3').execute()\n"
        "nbformat.write(notebook, 'done.ipynb')\n"
    )
    cache = {"MMD_DDM_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    notebook = EXAMPLES / "quickstart.ipynb"
    subprocess.run(
        [sys.executable, "-c", run, str(notebook)], cwd=tmp_path, check=True,
        capture_output=True, env={**os.environ, **cache},
    )  # fmt: skip
    done = (tmp_path / "done.ipynb").read_text(encoding="utf-8")
    assert "Real gain: held-out efficientnet-lite0 improves" in done
    assert "model.onnx" in done
    assert '"outputs": []' in notebook.read_text(encoding="utf-8")  # none are kept
    assert set(re.findall(r"mmd\.(\w+)", done)) <= set(mmd_ddm.__all__)
