"""README and pages cannot drift: Python runs, commands exist, tables name what there is."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline

import mmd_ddm
from mmd_ddm.features.registry import FEATURES
from mmd_ddm.maths.times import SCHEDULE_SPACINGS, SPACINGS
from mmd_ddm.samplers.registry import SAMPLERS

ROOT = Path(__file__).parents[1]
PAGES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README, ON_SAMPLERS = PAGES["README"], PAGES["samplers"]


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def smaller(code: str, changes: dict[str, str]) -> str:
    """The same code for a test's patience: every change has to find its place."""
    for large, small in changes.items():
        assert large in code
        code = code.replace(large, small)
    return code


def test_python_runs(workplace):
    """Every line of the public interface."""
    (code,) = blocks("python", PAGES["python"])
    names: dict[str, object] = {}
    small = smaller(
        code,
        {
            'images("fashion-mnist")': 'images("digits.npy")',
            'load("fashion-mnist")': 'load("base")',
            '"encoder"': '"encoder:judge.safetensors"',
            '"efficientnet-lite0"': '"pixels"',
            '"iterations": 140, "batch_size": 32': '"iterations": 1, "batch_size": 2, '
            '"judge_samples": 4, "select": {"samples": 4}, "compare_steps": [3]',
            "draw(64": "draw(2",
            "seeds=3": 'seeds=3, n=4, features=["pixels"]',
            'samplers="all", steps=[5, 10]': 'samplers=["ddim"], steps=[3], n=4, '
            'features=["pixels"]',
        },
    )
    exec(compile(small, "python.md", "exec"), names)
    result = names["result"]
    assert names["pixels"].shape == (2, 1, 8, 8)
    assert result.best_iteration in (0, 1)
    assert [row["seeds"] for row in names["scores"].rows] == [3]
    assert [row["name"] for row in names["table"].rows] == ["finetuned", "base"]
    page = (workplace / "report.html").read_text(encoding="utf-8")
    assert result.verdict.sentence.split(":")[0] in page
    # What diffusers loads draws what our sampler does.
    pipeline = DDIMPipeline.from_pretrained(workplace / "model")
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(i) for i in range(2)]
    drawn = pipeline(2, seeds, num_inference_steps=5, output_type="np").images
    ours = names["pixels"].permute(0, 2, 3, 1).numpy()
    assert np.abs((drawn * 255).round() - ours).max() <= 1
    with pytest.raises(ValueError, match="has no report"):
        mmd_ddm.report([names["scores"]], "no.html")


def test_python_of_the_readme_runs(workplace):
    (code,) = blocks("python", README)
    small = smaller(
        code,
        {
            'images("fashion-mnist")': 'images("digits.npy")',
            'finetune("fashion-mnist"': 'finetune("base"',
            'recipe="auto"': 'recipe="auto", features=["pixels"], judges=["random"], '
            'iterations=1, batch_size=2, judge_samples=4, select={"every": 0, '
            '"features": "frequencies"}, compare_steps=[]',
        },
    )
    exec(compile(small, "README.md", "exec"), {})
    assert (workplace / "model" / "model_index.json").is_file()


def test_the_readme_is_one_screen():
    assert len(README.splitlines()) <= 60


def test_python_on_samplers_runs():
    names: dict[str, object] = {}
    for code in blocks("python", ON_SAMPLERS):
        exec(compile(code, "samplers.md", "exec"), names)
    assert names["images"].shape == (4, 1, 28, 28)
    assert ON_SAMPLERS.count(f"--times 999,{','.join(map(str, names['times']))} ") == 2
    assert all(f"`{name}`" in ON_SAMPLERS for name in SAMPLERS)


@pytest.mark.parametrize(
    "line",
    sorted(
        {
            line
            for page in PAGES.values()
            for code in blocks("text", page) + blocks("sh", page)
            for line in re.findall(r"^mmd-ddm .*", code, re.M)
        }
    ),
)
def test_commands_parse(line):
    from typer.main import get_command

    from mmd_ddm.cli import app

    verb, *words = line.split("#")[0].split()[1:]
    command = get_command(app).commands[verb]
    command.make_context(verb, [w for w in words if not w.startswith("[") and not w.endswith("]")])


def test_tables_name_everything():
    assert all(f"`{name}`" in PAGES["spaces"] for name in FEATURES)
    assert all(f"`{name}`" in ON_SAMPLERS for name in (*SPACINGS, *SCHEDULE_SPACINGS))


def test_first_commands_are_the_makefiles():
    first = [line.split()[1] for line in README.splitlines() if line.startswith("    make ")]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert first == ["demo", "test"]
    assert set(first) <= set(targets)
