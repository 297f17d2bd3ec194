"""The README cannot drift: its Python runs, its commands exist, its tables name what there is."""

import re
from pathlib import Path

import pytest

from mmd_ddm.features.registry import FEATURES
from mmd_ddm.maths.times import SCHEDULE_SPACINGS, SPACINGS
from mmd_ddm.samplers.registry import SAMPLERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ON_SAMPLERS = (ROOT / "docs/samplers.md").read_text(encoding="utf-8")


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMD_DDM_CACHE", str(tmp_path / "cache"))
    (code,) = blocks("python")
    # The same code, smaller: the README's numbers are for a person's patience, not for a test.
    for large, small in (
        ("iterations=140, batch_size=32", "iterations=1, batch_size=2"),
        ("draw(sampler, 64)", "draw(sampler, 2)"),
    ):
        assert large in code
        code = code.replace(large, small)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["bank"].shape == (7000, 1120)
    assert names["pixels"].shape == (2, 1, 28, 28)


def test_python_on_samplers_runs():
    names: dict[str, object] = {}
    for code in blocks("python", ON_SAMPLERS):
        exec(compile(code, "samplers.md", "exec"), names)
    assert names["images"].shape == (4, 1, 28, 28)
    assert ON_SAMPLERS.count(f"--times 999,{','.join(map(str, names['times']))} ") == 2
    assert all(f"`{name}`" in ON_SAMPLERS for name in SAMPLERS)


@pytest.mark.parametrize(
    "line",
    [x for b in blocks("text", README + ON_SAMPLERS) for x in re.findall(r"^mmd-ddm .*", b, re.M)],
)
def test_commands_parse(line):
    from typer.main import get_command

    from mmd_ddm.cli import app

    verb, *words = line.split("#")[0].split()[1:]
    command = get_command(app).commands[verb]
    command.make_context(verb, [w for w in words if not w.startswith("[") and not w.endswith("]")])


def test_tables_name_everything():
    assert all(f"`{name}`" in README for name in (*SAMPLERS, *FEATURES))
    assert all(f"`{name}`" in README for name in (*SPACINGS, *SCHEDULE_SPACINGS))


def test_first_commands_are_the_makefiles():
    first = [line.split()[1] for line in README.splitlines() if line.startswith("    make ")]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert first == ["demo", "test"]
    assert set(first) <= set(targets)
