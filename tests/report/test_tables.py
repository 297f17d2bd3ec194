"""One kind of table: what is in it, and how Markdown, LaTeX and CSV show it."""

import csv
import io
import subprocess
import sys

import pytest
from run_folders import PageReader, make_results, make_run

from mmd_ddm.cli.console import console
from mmd_ddm.report import short_names, write_report
from mmd_ddm.report.figures import loss_chart
from mmd_ddm.report.results import results_table
from mmd_ddm.report.tables import Strong, Table, csv_text
from mmd_ddm.report.terminal import shown_results

SMALL = Table(
    ["name", "a & b", "note"],
    {"x": [["50 %", Strong("1 ± 2"), "|"]], "y": [["c_d", "\N{MINUS SIGN}3", "\\#{}~^<>$"]]},
    words=1,
    caption="100 %",
)


def test_before_and_after_with_kid_in_thousandths_and_fd_as_it_is():
    table = results_table(make_results())
    assert table.columns == [
        "space", "role", "metric", "base, 5 steps", "finetuned, 5 steps", "change",
        "base, 10 steps", "base, 20 steps", "real vs real", "gap closed",
    ]  # fmt: skip
    assert list(table.groups) == ["KID x1000", "FD"]
    assert {len(line) for line in table.lines} == {len(table.columns)}
    assert table.lines[2] == [
        "lite0", "held-out", "KID x1000", "3272 ± 30", "1120 ± 20", "\N{MINUS SIGN}66 %",
        "1326 ± 20", "1112 ± 20", "\N{MINUS SIGN}0.1 ± 0.2", "66 %",
    ]  # fmt: skip
    assert table.lines[3][:5] == ["encoder", "optimised", "FD", "8.08", "0.220"]
    assert {isinstance(line[4], Strong) for line in table.lines} == {True}


def test_markdown():
    assert SMALL.markdown().splitlines() == [
        "| name | a &amp; b | note |",
        "| --- | ---: | ---: |",
        "| 50 % | **1 ± 2** | \\| |",
        "| c_d | \N{MINUS SIGN}3 | \\\\#{}~^&lt;&gt;$ |",
    ]


def test_latex():
    assert SMALL.latex().splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{100 \%}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"name & a \& b & note \\",
        r"\midrule",
        r"50 \% & \textbf{1 $\pm$ 2} & \textbar{} \\",
        r"\midrule",
        r"c\_d & $-$3 & \textbackslash{}\#\{\}\textasciitilde{}\textasciicircum{}"
        r"\textless{}\textgreater{}\$ \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_columns_can_be_left_out():
    fewer = SMALL.without("name", "note")
    assert (fewer.columns, fewer.words) == (["a & b"], 0)
    assert fewer.groups == {"x": [["1 ± 2"]], "y": [["\N{MINUS SIGN}3"]]}
    assert SMALL.without("note").words == 1


def test_csv_keeps_every_digit():
    text = csv_text(["a", "b", "c"], [[0.1 + 0.2, None, 'x,"y"']])
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["a"]) == 0.1 + 0.2
    assert (row["b"], row["c"]) == ("", 'x,"y"')


def test_a_resumed_runs_later_word_wins():
    first = [{"event": "train", "step": step, "loss": 5.0 - step} for step in range(1, 30)]
    twice = [*first[:20], {**first[9], "loss": 90.0}, *first[9:], {"event": "train", "loss": 1.0}]
    assert loss_chart(twice, "chart") == loss_chart(first, "chart")
    assert loss_chart([*first, {**first[9], "loss": 90.0}], "chart") != loss_chart(first, "chart")


def test_reading_needs_neither_torch_nor_diffusers():
    code = "import sys, mmd_ddm.report; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_are_shortened_while_they_stay_apart():
    names = ["encoder:a/b.safetensors", "denoiser:base", "denoiser:other", "pixels"]
    assert short_names(names) == {
        "encoder:a/b.safetensors": "encoder",
        "denoiser:base": "denoiser:base",
        "denoiser:other": "denoiser:other",
        "pixels": "pixels",
    }


@pytest.mark.parametrize(("samples", "real"), [(499, 3000), (3000, 499)])
def test_fd_of_fewer_images_than_dimensions_is_warned_of_once_wherever_it_is_shown(
    samples, real, tmp_path
):
    results = make_results()
    assert results_table(results).note == ""
    results["protocol"] |= {"samples": samples, "real": real}
    results["spaces"]["lite0"]["dim"] = 499
    said = "FD is of 499 images, fewer than the dimensions of encoder (500 dimensions), random"
    table = results_table(results)
    assert table.note.startswith(said)
    assert "lite0" not in table.note
    with console.capture() as printed:
        console.print(shown_results(results))
    write_report([make_run(tmp_path / "run", results)], tmp_path / "page.html")
    write_report([tmp_path / "run"], tmp_path / "page.md")
    page = PageReader(tmp_path / "page.html").text
    for text in (printed.get(), page, (tmp_path / "page.md").read_text(), table.latex()):
        assert " ".join(text.split()).count(said) == 1
    for about in results["spaces"].values():
        about["floor"] = {"kid": 0.0}
    assert results_table(results).note == ""
