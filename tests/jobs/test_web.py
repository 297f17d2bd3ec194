"""The page of a run: its folder, and what a real browser draws."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import JUDGE, mmd_ddm

from mmd_ddm.jobs.graph_formats import onnx_drawing

ROOT = Path(__file__).parents[2]
RUN = (
    "finetune", "base", "--data", "digits.npy", "--steps", 5, "--batch-size", 4, "--features",
    "pixels", "--iterations", 1, "--set", f"judges={JUDGE}", "--set", "select.every=0",
    "--set", "judge_samples=8", "--set", "compare_steps=[8]", "--out", "run",
)  # fmt: skip
EXPORT = ("export", "run", "--to", "web", "--out", "page")


def runtime():
    """An installed onnxruntime-web, in the repository or around it."""
    places = (p / "node_modules" for p in (ROOT, *ROOT.parents))
    found = next((p for p in places if (p / "onnxruntime-web" / "dist").is_dir()), None)
    return found or pytest.skip("no onnxruntime-web: npm install onnxruntime-web")


def normals(seed, n):
    """As the page makes them: mulberry32, then Box and Muller."""
    state = np.uint32(seed)

    def uniform():
        nonlocal state
        with np.errstate(over="ignore"):
            state += np.uint32(0x6D2B79F5)
            t = (state ^ (state >> 15)) * (np.uint32(1) | state)
            t = (t + (t ^ (t >> 7)) * (np.uint32(61) | t)) ^ t
        return int(t ^ (t >> 14)) / 2**32

    def normal():
        return (-2 * np.log(1 - uniform())) ** 0.5 * np.cos(2 * np.pi * uniform())

    return np.array([normal() for _ in range(n)], np.float32)


@pytest.fixture
def page(workplace):
    (workplace / "node_modules").symlink_to(runtime())
    for words in (RUN, EXPORT):
        done = mmd_ddm(workplace, *words)
        assert done.code == 0, done.err
    return workplace / "page"


@pytest.mark.slow
def test_the_page_draws_in_a_browser_what_the_chains_draw(page, tmp_path):
    about = json.loads((page / "chains.json").read_text())
    assert [panel["name"] for panel in about["panels"]] == ["base", "finetuned"]
    steps = [[chain["steps"] for chain in panel["chains"]] for panel in about["panels"]]
    assert steps == [[5, 8], [5]]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium: apt install chromium")
    handler = functools.partial(QuietHandler, directory=str(page))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = subprocess.run(
            [
                chromium, "--headless=new", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=120000", "--dump-dom",
                f"http://127.0.0.1:{server.server_port}/",
            ],
            capture_output=True, text=True, timeout=300, check=True,
        ).stdout  # fmt: skip
        server.shutdown()
    assert 'data-seed="0"' in shown, shown
    assert len(re.findall(r"ms per image", shown)) >= 2
    noise = torch.from_numpy(normals(0, 16 * 64).reshape(16, 1, 8, 8))
    means = [float(mean) for mean in re.findall(r'data-mean="([\d.]+)"', shown)]
    expected = [
        onnx_drawing(page / panel["chains"][0]["file"])(noise, None).mean()
        for panel in about["panels"]
    ]
    assert means == pytest.approx(expected, abs=0.05)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


def test_without_a_run_or_its_runtime(workplace):
    done = mmd_ddm(workplace, *EXPORT)
    assert (done.code, "run is no finished run of finetune or demo" in done.err) == (2, True)
    done = mmd_ddm(workplace, *EXPORT, "--steps", 3)
    assert "web shows the chains that its run compared: name no other" in done.err
    assert not (workplace / "page").exists()
