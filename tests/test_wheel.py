"""A wheel holds the whole package, and works where no repository is."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = (
    "iterations=2", "batch_size=4", "objective.features=encoder", "judges=pixels",
    "judge_samples=20", "select.samples=20", "compare_steps=[]",
)  # fmt: skip


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as content:
        packed = {name for name in content.namelist() if name.startswith("mmd_ddm/")}
        content.extractall(place)
    source = ROOT / "src"
    files = (path for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {path.relative_to(source).as_posix() for path in files}

    def python(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(place)}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    home = python("-c", "import mmd_ddm; print(mmd_ddm.__file__)").strip()
    assert Path(home) == place / "mmd_ddm" / "__init__.py"
    settings = [word for setting in TINY for word in ("--set", setting)]
    python("-m", "mmd_ddm", "demo", *settings, "--out", "run")
    rows = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["name"] for row in rows] == ["base", "finetuned"]
    assert "<svg" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
