"""What a report shows of other verbs' work, and its other forms: Markdown, LaTeX and CSV."""

import csv
import json
import math
import re
import shutil

import pytest
from run_folders import KID, PageReader, make_results, make_run

from mmd_ddm.report import write_report

SOLVERS = {("heun", 9): 4.0, ("unipc", 5): 2.0, ("deis", 5): 2.5, ("unipc", 10): 1.25}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "demo")


def write_bench(run, **protocol):
    """A comparison of samplers beside the run; one finetuned row, which is not a sampler's."""
    results = make_results()
    rows = [
        {"name": "base", "sampler": s, "nfe": nfe, "spaces": {"lite0": {"kid": k, "kid_se": 0.01}}}
        for (s, nfe), k in SOLVERS.items()
    ]
    rows.append({**rows[0], "name": "finetuned", "sampler": "mine"})
    content = {**results, "rows": rows, "protocol": {**results["protocol"], **protocol}}
    (run / "bench").mkdir()
    (run / "bench" / "bench.json").write_text(json.dumps(content))


def page_of(run):
    page = run.parent / "page.html"
    write_report([run], page)
    return PageReader(page), page.read_text(encoding="utf-8")


def test_the_same_noise_can_be_wiped_from_before_to_after(run):
    reader, _ = page_of(run)
    assert "input" not in reader.tags
    for name in ("before", "after"):
        shutil.copy(run / "pairs.png", run / f"{name}.png")
    reader, text = page_of(run)
    assert "input" in reader.tags
    assert text.count("data:image/png") == 3
    assert "left of the line the base model" in reader.words


def test_every_space_has_a_finding(tmp_path):
    reader, _ = page_of(make_run(tmp_path / "run", make_results(lite0=(3.9, 0.02))))
    assert "optimised encoder: improves, 97 % of the gap closed" in reader.words
    assert "held-out lite0: gets worse" in reader.words


def test_other_samplers_are_charted_where_they_are_the_best_of_their_cost(run):
    write_bench(run)
    reader, _ = page_of(run)
    assert "lowest of 4 training-free rows up to that cost" in reader.words
    chart = reader.words[reader.words.index("Quality against cost") :]
    assert chart.count("unipc") == 2
    assert not re.search("deis|heun|mine", chart)


def test_samplers_that_were_judged_by_other_images_are_left_out(run):
    write_bench(run, data_sha256="other")
    assert "training-free" not in page_of(run)[0].words


def test_pictures_of_other_verbs_are_shown_with_their_finding(run):
    (run / "neighbors").mkdir()
    shutil.copy(run / "pairs.png", run / "neighbors" / "neighbors.png")
    (run / "neighbors" / "neighbors.json").write_text('{"sentence": "No <b>copies</b>: p = 0.4."}')
    reader, text = page_of(run)
    assert "Nearest training images No <b>copies</b>: p = 0.4." in reader.words
    assert "<b>copies" not in text


def test_markdown_has_verdict_table_and_protocol(run, tmp_path):
    (tmp_path / "docs").mkdir()
    out = tmp_path / "docs" / "results.md"
    write_report([run, run], out)
    text = out.read_text(encoding="utf-8")
    for phrase in (
        "# 5 steps now draw what takes the base more than 10, at most 20",
        "**Real gain:",
        "![Base above, finetuned below, real images at the right](<../demo/pairs.png>)",
        "| lite0 | held-out | KID x1000 | 3272 ± 30 | **1120 ± 20** |",
        "mmd-ddm finetune --out 'a run'",
        "| samples | 3000 |",
        "| versions.torch | 2.14.1 |",
    ):
        assert text.count(phrase) == 2, phrase


def test_markdown_escapes_what_the_run_names(tmp_path):
    results = make_results()
    results["protocol"]["data"] = "<script>|`x`"
    out = tmp_path / "out.md"
    write_report([make_run(tmp_path / "run", results)], out)
    assert "| data | &lt;script&gt;\\|\\`x\\` |" in out.read_text(encoding="utf-8")


def test_csv_holds_every_number(run, tmp_path):
    out = tmp_path / "out.csv"
    write_report([run], out)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * sum(map(len, KID.values()))
    (row,) = (
        r for r in rows
        if (r["name"], r["space"], r["metric"]) == ("finetuned", "lite0", "kid")
    )  # fmt: skip
    assert (row["run"], row["sampler"], row["nfe"], row["role"]) == (
        "demo",
        "ddim",
        "5",
        "held-out",
    )
    value, se = KID["finetuned", 5]["lite0"]
    assert math.isclose(float(row["value"]), value)
    assert math.isclose(float(row["standard_error"]), se)
    assert float(row["real_vs_real"]) == -0.0001


def test_latex_has_a_table_a_run(run, tmp_path):
    out = tmp_path / "out.tex"
    write_report([run, run], out)
    text = out.read_text(encoding="utf-8")
    assert text.count(r"\caption{demo: 5 steps now draw what takes the base") == 2
    line = r"lite0 & held-out & KID x1000 & 3272 $\pm$ 30 & \textbf{1120 $\pm$ 20} & $-$66 \% &"
    assert text.count(line) == 2


@pytest.fixture
def comparison(run):
    """A comparison's folder, which is no run's."""
    results = make_results()
    for row in results["rows"]:
        row["seeds"] = 1
    content = {**results, "model": "a <model>", "notes": ["left out <genie>"]}
    folder = run.parent / "table"
    folder.mkdir()
    (folder / "bench.json").write_text(json.dumps(content))
    return folder


def test_a_comparison_makes_a_page_of_its_own(comparison, tmp_path):
    write_report([comparison], tmp_path / "page.html")
    reader = PageReader(tmp_path / "page.html")
    assert "Samplers on a <model>" in reader.words
    assert "5 steps finetuned fashion-mnist (ddim)" in reader.words
    assert "left out <genie>" in reader.words
    assert not reader.tags & {"img", "genie", "model"}
    shutil.copy(comparison.parent / "demo" / "pairs.png", comparison / "bench.png")
    write_report([comparison], tmp_path / "page.html")
    assert "Quality against cost" in PageReader(tmp_path / "page.html").words


def test_runs_and_comparisons_share_a_report(run, comparison, tmp_path):
    for ending in ("html", "md", "tex", "csv"):
        write_report([comparison, run, run], tmp_path / f"out.{ending}")
    page = PageReader(tmp_path / "out.html")
    assert page.words.index("2 runs compared") < page.words.index("Samplers on a <model>")
    assert len(page.ids) == len(set(page.ids))
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert text.index("# Samplers on a &lt;model&gt;") < text.index("# 5 steps now draw")
    assert (tmp_path / "out.tex").read_text(encoding="utf-8").count(r"\begin{table}") == 3
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"table", "demo"}


@pytest.mark.parametrize("ending", ["md", "tex", "csv"])
def test_only_reports_are_overwritten(run, tmp_path, ending):
    out = tmp_path / f"out.{ending}"
    write_report([run], out)
    write_report([run], out)
    out.write_text("mine")
    with pytest.raises(ValueError, match="not a report of ours"):
        write_report([run], out)
    assert out.read_text() == "mine"
