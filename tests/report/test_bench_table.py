"""The comparison of samplers as files and in the terminal."""

import csv
import re

import pytest

from mmd_ddm.cli.console import console
from mmd_ddm.report.bench import write_bench_chart, write_bench_tables
from mmd_ddm.report.results import comparison_table
from mmd_ddm.report.tables import Strong
from mmd_ddm.report.terminal import shown_bench


def results() -> dict:
    def row(name, sampler, steps, nfe, kid, **more) -> dict:
        scores = {"kid": kid, "kid_se": 0.001, "fd": 100 * kid}
        return {
            "name": name, "model": f"some/{name}", "sampler": sampler, "spacing": "leading",
            "steps": steps, "nfe": nfe, "seeds": 1, "images_per_second": 12.0,
            "spaces": {"pixels": scores, "encoder": {**scores, "kid": 2 * kid}}, **more,
        }  # fmt: skip

    above = {"pixels": {"kid": 0.022, "kid_se": 0.0005}}
    floor = {"fd": 1.0, "kid": -0.0001, "kid_se": 0.0002}
    return {
        "model": "some/base",
        "protocol": {"data": "images.zip", "samples": 3},
        "spaces": {
            "pixels": {"role": "held-out", "floor": floor},
            "encoder": {"role": "optimised", "floor": floor},
        },
        "rows": [
            row("finetuned", "ddim", 5, 5, 0.02, above_best=above),
            row("base", "ddim", 10, 10, 0.03),
            row("base", "ddim", 5, 5, 0.05),
            row("base", "heun", 5, 9, 0.01),
            row("base", "unipc", 5, 5, -0.002, order=2),
        ],
        "notes": ["left out f-pndm at 3 steps"],
    }


def test_lines_are_sorted_by_steps_then_quality():
    table = comparison_table(results())
    assert table.columns == [
        "sampler", "spacing", "order", "steps", "NFE",
        "pixels KID x1000", "pixels KID x1000 above best", "pixels FD",
        "encoder KID x1000", "encoder KID x1000 above best", "encoder FD", "s/image",
    ]  # fmt: skip
    assert list(table.groups) == ["5 steps", "10 steps", ""]
    *lines, floor = table.lines
    assert [(isinstance(line[0], Strong), line[0], line[3], line[4]) for line in lines] == [
        (False, "unipc", "5", "5"),
        (False, "heun", "5", "9"),
        (True, "finetuned finetuned (ddim)", "5", "5"),
        (False, "ddim", "5", "5"),
        (False, "ddim", "10", "10"),
    ]
    assert lines[2][5:] == [
        "20.0 ± 1.0",
        "22.0 ± 0.5",
        "2.00",
        "40.0 ± 1.0",
        "\N{EN DASH}",
        "2.00",
        "0.0833",
    ]
    assert [line[2] for line in lines] == ["2", *4 * "\N{EN DASH}"]
    assert floor[0] == "real vs real"
    assert {len(line) for line in table.lines} == {len(table.columns)}


def test_markdown_latex_and_csv_say_the_same(tmp_path):
    write_bench_tables(results(), tmp_path)
    text = (tmp_path / "bench.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 5 + 1
    assert len({line.count("|") for line in table}) == 1
    assert "**finetuned finetuned (ddim)**" in table[4]
    assert "encoder: optimised" in text
    assert "- samples: 3" in text
    assert "- left out f-pndm at 3 steps" in text
    latex = (tmp_path / "bench.tex").read_text(encoding="utf-8")
    assert latex.count(r"\\") == len(table) - 1
    assert latex.count(r"\midrule") == 3
    assert r"\textbf{20.0 $\pm$ 1.0} & \textbf{22.0 $\pm$ 0.5} & \textbf{2.00}" in latex
    with (tmp_path / "bench.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sampler"] for row in rows] == ["unipc", "heun", "ddim", "ddim", "ddim"]
    assert [row["order"] for row in rows] == ["2", "", "", "", ""]
    assert float(rows[1]["encoder kid"]) == 0.02
    assert [row["pixels kid above best"] for row in rows] == ["", "", "0.022", "", ""]
    assert float(rows[1]["seconds_per_image"]) == pytest.approx(1 / 12, abs=1e-6)
    assert rows[1]["encoder fd_se"] == ""


def test_chart_is_a_picture_also_where_kid_is_negative(tmp_path):
    write_bench_chart(results(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_printed_table_fits_80_columns(monkeypatch, capsys):
    monkeypatch.setattr(console, "width", 80)
    rows = results()
    rows["spaces"] = {"efficientnet-lite0": rows["spaces"]["pixels"], **rows["spaces"]}
    del rows["spaces"]["pixels"]
    for row in rows["rows"]:
        scores = row["spaces"].pop("pixels")
        row["spaces"]["efficientnet-lite0"] = {**scores, "fd": 405.2, "fd_se": 1.5}
        row["sampler"] = "dpm-solver-fast-type-2"
    console.print(shown_bench(rows))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "in 1 efficientnet-lite0, 2 encoder" in text
    assert re.search("KID 1 +FD 1 +KID 2 +FD 2 s/image", text)
    assert re.search(r" dpm-solver-fast-type-2 +5 +5 +.2\.0 ± 1\.0 405\.2 ", text)


def test_a_comparison_warns_of_fd_of_few_images():
    found = results()
    assert comparison_table(found).note == ""
    found["spaces"]["encoder"]["dim"] = 4
    assert comparison_table(found).note.startswith(
        "FD is of 3 images, fewer than the dimensions of encoder (4 dimensions): "
    )
