"""The floor plan in docs/ is that of the code, and the walks in it can be walked."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def floor_plan(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "docs" / "floor_plan.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_picture_is_what_the_imports_say():
    done = floor_plan(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_arrow_is_another_picture(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("bundled"))
    (tmp_path / "docs").mkdir()
    for name in ("floor_plan.py", "architecture.svg"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    assert floor_plan(tmp_path, "--check").returncode == 0
    with (tmp_path / "src/mmd_ddm/maths/slerp.py").open("a", encoding="utf-8") as room:
        room.write("import mmd_ddm.config\n")
    assert floor_plan(tmp_path, "--check").returncode == 1
    floor_plan(tmp_path)
    picture = (tmp_path / "docs/architecture.svg").read_text(encoding="utf-8")
    assert "maths → config: 1 room<" in picture


def test_count_of_a_small_house(tmp_path):
    """Two rooms of one wing import from the other: three arrows between rooms, one of wings."""
    package = tmp_path / "mmd_ddm"
    rooms = {
        "a/one": "import mmd_ddm.b.low\nimport mmd_ddm.a.two\n",
        "a/two": "import mmd_ddm.b.low",
        "b/low": "x = 1\n\ny = 2\n",
    }
    for name, text in rooms.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for folder in (package, package / "a", package / "b"):
        (folder / "__init__.py").touch()
    done = floor_plan(ROOT, "--count", "--src", str(tmp_path))
    assert done.stdout.splitlines() == [
        "rooms: 6",
        "arrows between rooms: 3",
        "wings: 2",
        "arrows between wings: 1",
        "lines of the longest room: 3 (b/low.py)",
        "lines of cli: 0",
        "lines in all: 6",
        "lines: a 3, b 3, __init__.py 0",
    ]


@pytest.mark.parametrize(
    "title", ["From the command to the weights", "From the command to a score"]
)
def test_a_walk_is_twelve_files_each_joined_to_one_before_it(title):
    section = DOCUMENT.partition(f"## {title}")[2].partition("\n## ")[0]
    walk = re.findall(r"^\d+\. `src/(.+?)\.py`", section, re.MULTILINE)
    rooms = [room.replace("/", ".") for room in walk]
    assert len(rooms) == 12
    graph = grimp.build_graph("mmd_ddm", cache_dir=None)
    for i, room in enumerate(rooms[1:], start=1):
        joined = graph.find_modules_that_directly_import(room)
        joined |= graph.find_modules_directly_imported_by(room)
        assert joined & {*rooms[:i]}, room


def test_what_is_to_be_extended_stands_where_the_table_says():
    named = re.findall(r"`(\w+)`, `(src/[\w/]+\.py)` \|", DOCUMENT)
    assert len(named) == 7
    for name, path in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *(def )?{name}\b", text, re.MULTILINE), (name, path)
