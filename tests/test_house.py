"""The rules of the house: imports, sizes, names, documents, set-up."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmd_ddm

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted((ROOT / "src").rglob("*.py"))
PYTHON_FILES = [
    path
    for folder in ("src", "tests", "examples", "recipes", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
]
FOLDERS = ("src", "tests", "examples", "recipes", "benchmarks", "docs")


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


# Imports


def test_import_contracts_hold():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = run(str(lint_imports), "--no-logo", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["", ".cli", ".config", ".report", ".runs.folder"])
def test_import_without_torch(module):
    heavy = "{'torch', 'diffusers'} & set(sys.modules)"
    done = run(sys.executable, "-c", f"import sys, mmd_ddm{module}; print({heavy} or 'light')")
    assert done.stdout.strip() == "light", done.stdout + done.stderr


def test_help_of_every_verb_without_torch():
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from mmd_ddm.cli import app\n"
        "verbs = [c.name or c.callback.__name__ for c in app.registered_commands]\n"
        "for words in ([], *([v] for v in verbs)):\n"
        "    result = CliRunner().invoke(app, [*words, '--help'])\n"
        "    assert result.exit_code == 0, result.output\n"
        "print(len(verbs), 'torch' in sys.modules)\n"
    )
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    verbs, heavy = done.stdout.split()
    assert int(verbs) > 0
    assert heavy == "False"


def test_public_names_exist():
    assert all(getattr(mmd_ddm, name) is not None for name in mmd_ddm.__all__)


# Rooms


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_rooms_are_small_and_named(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "common", "helpers", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_modules_open_with_docstring_and_all(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    assert "__all__" in names


# Documents


def paths_in(text: str) -> set[str]:
    """Relative links, and code spans that begin with a folder of this repository."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose) + re.findall(
        r'(?:src|href)="([^"]+)"', prose
    )
    spans = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", prose)
    local = {link.split("#")[0] for link in links if not re.match(r"\w+:|#", link)}
    return local | {f"/{span}" for span in spans}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_only_what_exists(name):
    document = ROOT / name
    missing = [
        path
        for path in paths_in(document.read_text(encoding="utf-8"))
        if not (ROOT / path[1:] if path.startswith("/") else document.parent / path).exists()
    ]
    assert not missing


def test_paths_in_finds_links_and_spans():
    text = (
        '[a](b.md#c) ![d](e/f.png "g") `src/x.py` `x = 1` [h](https://i) [j](#k) <img src="l.svg">'
    )
    assert paths_in(text) == {"b.md", "e/f.png", "/src/x.py", "l.svg"}


def test_every_dependency_is_explained():
    rows = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8").splitlines()
    first = [row.split("|")[1] for row in rows if row.startswith("| `")]
    explained = {name for cell in first for name in re.findall(r"`(.+?)`", cell)}
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[<>=\[; ]", requirement)[0] for requirement in wanted} - {"mmd-ddm"}
    assert names - explained == set()


def test_version_has_one_source():
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert source == Path(mmd_ddm.__file__)
    assert f'__version__ = "{mmd_ddm.__version__}"' in source.read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)[:2] == [
        "Unreleased",
        mmd_ddm.__version__,
    ]


# Set-up: the Makefile, with a Python that only notes what it is asked.

FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
  -c*) exit "${TOO_OLD:-0}" ;;
  "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python
    printf '#!/usr/bin/env bash\\necho mmd-ddm "$@"\\n' > .venv/bin/mmd-ddm
    chmod +x .venv/bin/mmd-ddm ;;
  "-m pip") echo "$@" >> pip.txt
    echo "  Downloading torch-2.whl.metadata (31 kB)"
    echo "  Downloading torch-2.whl (915.4 MB)"
    exit "${NO_INDEX:-0}" ;;
  *) echo "python $*" ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    if not shutil.which("make") or not shutil.which("bash"):
        pytest.skip("needs make and bash")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "fake-python"
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)

    def call(target: str, **environment: str) -> tuple[int, str, str, int]:
        command = ["make", "--no-print-directory", "-C", str(tmp_path), f"PYTHON={python}", target]
        done = run(*command, env={**os.environ, "MAKEFLAGS": "", **environment})
        log = tmp_path / "pip.txt"
        return (
            done.returncode, done.stdout, done.stderr,
            len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0,
        )  # fmt: skip

    return call


def test_make_installs_once(make):
    code, out, _, installs = make("demo")
    assert (code, installs) == (0, 1)
    assert "torch-2.whl (915.4 MB)" in out
    assert "metadata" not in out
    assert out.endswith("mmd-ddm demo\n")
    assert make("demo")[3] == 1
    assert make("test")[3] == 2  # the development tools come on top ...
    assert make("test")[3] == make("demo")[3] == 2  # ... and serve both


def test_make_tries_again_after_a_failed_install(make):
    assert make("demo", NO_INDEX="1")[0] != 0
    assert make("demo")[0::3] == (0, 2)


def test_make_refuses_an_old_python_in_one_line(make):
    code, _, err, installs = make("demo", TOO_OLD="1")
    assert (code, installs) == (2, 0)
    assert err.splitlines()[0].startswith("mmd-ddm needs Python 3.11 or newer")
    assert "make PYTHON=" in err.splitlines()[0]
