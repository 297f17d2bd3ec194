"""A wheel holds the whole package, works where no repository is, and an index would take it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mmd_ddm

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


@pytest.mark.slow
def test_what_is_published_is_sound(tmp_path):
    def check(*words: str) -> None:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    check(sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path))
    made = sorted(map(str, tmp_path.iterdir()))
    assert [Path(name).suffix for name in made] == [".whl", ".gz"]
    check(sys.executable, "-m", "twine", "check", "--strict", *made)
    tools = Path(sys.executable).parent
    check(str(tools / "check-wheel-contents"), made[0])
    check(str(tools / "hadolint"), "Dockerfile")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mmd_ddm.__version__}\n" in citation
