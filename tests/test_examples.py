"""The examples run, and show what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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
