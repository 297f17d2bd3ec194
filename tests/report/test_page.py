"""The page a report writes: self-contained, complete, and never over something else."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from run_folders import SHA, PageReader, make_results, make_run

from mmd_ddm.report import write_report
from mmd_ddm.report.record import loading_code
from mmd_ddm.report.runs import read_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "demo")


def test_the_page_is_self_contained(run, tmp_path):
    page = tmp_path / "new" / "page.html"
    write_report([run], page)
    reader = PageReader(page)
    text = page.read_text(encoding="utf-8")
    outside = [
        link for link in reader.links if not link.startswith(("data:image/png;base64,", "#"))
    ]
    assert outside == []
    assert not reader.tags & {"script", "link", "iframe"}
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link[0] == "#"} <= set(reader.ids)


def test_the_page_tells_the_whole_story(run, tmp_path):
    page = tmp_path / "page.html"
    write_report([run], page)
    words = PageReader(page).words
    for phrase in (
        "5 steps now draw what takes the base more than 10, at most 20",
        "3272 ± 30 → 1120 ± 20",
        "2152 ± 36",
        "Real gain:",
        "KID \N{MULTIPLICATION SIGN} 1000 ± standard error",
        "unbiased MMD^2, (x.y/d+1)^3, whole sets",
        "mmd-ddm finetune --out 'a run'",
        "versions.torch 2.14.1",
        "c0ffee",
        "lr 2e-05",
        "950, 900, 850, ..., 50, 0 (20)",
        f"DiffusionPipeline.from_pretrained('{(run / 'model').as_posix()}')",
        "pipeline(batch_size=16, num_inference_steps=5).images",
    ):
        assert phrase in words, phrase
    for key, value in make_results()["protocol"].items():
        assert f"{key} {value}" in words
    assert words.count(SHA) == 3


def test_charts_are_sound_svg_in_the_colours_of_the_page(run, tmp_path):
    page = tmp_path / "page.html"
    write_report([run], page)
    text = page.read_text(encoding="utf-8")
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(charts) == 3
    for chart in charts:
        ElementTree.fromstring(chart.replace("xlink:href", "href"))
        assert "var(--accent)" in chart
        assert re.findall(r"(?:fill|stroke): #[0-9a-f]+", chart) == []


DRAWS = "images = pipeline(batch_size=16, num_inference_steps=5).images"


@pytest.mark.parametrize(
    ("scheduler", "last"),
    [
        ({"sampler": "ddim"}, DRAWS),
        ({"sampler": "heun", "table": [[1.0, 0.5]]}, DRAWS),
        (
            {"sampler": "stochastic ddim"},
            "# diffusers cannot repeat this chain: draw with `mmd-ddm sample`",
        ),
    ],
)
def test_a_model_with_its_own_scheduler_is_loaded_as_such(tmp_path, scheduler, last):
    run = make_run(tmp_path / "run", make_results())
    index = {"_class_name": "DDPMPipeline", "scheduler": ["scheduling_few_step", "FewStep"]}
    (run / "model" / "model_index.json").write_text(json.dumps(index))
    (run / "model" / "scheduler").mkdir()
    (run / "model" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    code = loading_code(read_run(run)).splitlines()
    assert code[-2].endswith("/run/model', trust_remote_code=True)")
    assert code[-1] == last


def test_a_negative_kid_is_charted(tmp_path):
    results = make_results(lite0=(-0.0002, 0.0004))
    write_report([make_run(tmp_path / "run", results)], tmp_path / "page.html")
    assert "\N{MINUS SIGN}0.2 ± 0.4" in PageReader(tmp_path / "page.html").words


def test_what_the_run_names_is_not_markup(tmp_path):
    results = make_results()
    results["protocol"]["data"] = "<script>alert(1)</script>"
    results["spaces"] = {
        name.replace("lite0", "<b>$x$&"): about for name, about in results["spaces"].items()
    }
    for row in results["rows"]:
        row["spaces"]["<b>$x$&"] = row["spaces"].pop("lite0")
    page = tmp_path / "page.html"
    write_report([make_run(tmp_path / "run", results)], page)
    reader = PageReader(page)
    assert "script" not in reader.tags
    assert "<script>alert(1)</script>" in reader.words
    assert "KID \N{MULTIPLICATION SIGN} 1000 in <b>$x$&" in reader.words


@pytest.mark.parametrize(
    ("beaten", "better", "finding"),
    [
        (None, 5, "The base draws better in 5 steps: no speed-up"),
        (None, 20, "5 steps draw about as well as the base's 5: no speed-up"),
        (None, None, "5 steps draw about as well as the base's 5: no speed-up"),
        (10, None, "5 steps now beat the base's 10, about as good as its 20"),
        (50, None, "5 steps now beat the base at every count tried, up to 50"),
    ],
)
def test_the_headline_claims_no_more_than_was_measured(beaten, better, finding, tmp_path):
    results = make_results()
    results["speedup"] |= {"beaten_steps": beaten, "base_steps": better}
    write_report([make_run(tmp_path / "run", results)], tmp_path / "page.html")
    reader = PageReader(tmp_path / "page.html")
    assert finding in reader.words
    assert "Fewer steps" not in reader.words


def test_a_gamed_run_claims_no_speedup(tmp_path):
    write_report(
        [make_run(tmp_path / "run", make_results(lite0=(3.9, 0.02)))], tmp_path / "p.html"
    )
    words = PageReader(tmp_path / "p.html").words
    assert "No real gain at 5 steps" in words
    assert "now draw" not in words


def test_several_runs_are_compared_and_their_differences_named(run, tmp_path):
    results = make_results(lite0=(3.9, 0.02))
    results["protocol"]["samples"] = 1000
    results["protocol"] |= {"kept_iteration": 7, "selection": {"kid": 0.5}}  # of a run, not of how
    other = make_run(tmp_path / "other", results)
    page = tmp_path / "page.html"
    write_report([run, other], page)
    reader = PageReader(page)
    assert "2 runs compared" in reader.words
    assert "The runs differ in samples:" in reader.words
    assert {"#run1", "#run2"} <= set(reader.links)
    assert len(reader.ids) == len(set(reader.ids))
    write_report([run, run], page)
    assert "The runs differ" not in PageReader(page).words


def test_a_bare_run_makes_a_page(run, tmp_path):
    for name in ("pairs.png", "log.jsonl", "model/model_index.json"):
        (run / name).unlink()
    write_report([run], tmp_path / "page.html")
    reader = PageReader(tmp_path / "page.html")
    assert "img" not in reader.tags
    assert "Training loss" not in reader.words
    assert "Load the model" not in reader.words


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["results.json"], "has no results.json;"),
        (["run.json"], "has no run.json;"),
        (["run.json", "results.json"], "has no run.json and no results.json;"),
    ],
)
def test_an_unfinished_run_is_refused(run, tmp_path, missing, words):
    for name in missing:
        (run / name).unlink()
    with pytest.raises(ValueError, match=words):
        write_report([run], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("content", ['{"rows": []}', '{"spaces": {}}', '{"spaces": 3}', "[", "[]"])
def test_broken_results_are_refused_in_one_line(run, tmp_path, content):
    (run / "results.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(run / "results.json"))) as caught:
        write_report([run], tmp_path / "page.html")
    assert "\n" not in str(caught.value)


def test_a_broken_picture_is_refused(run, tmp_path):
    (run / "pairs.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read .*pairs\.png"):
        write_report([run], tmp_path / "page.html")


def test_only_a_report_is_overwritten(run, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<html>mine: mmd-ddm report</html>")
    with pytest.raises(ValueError, match="not a report of ours"):
        write_report([run], page)
    assert page.read_text() == "<html>mine: mmd-ddm report</html>"
    page.unlink()
    write_report([run], page)
    fresh = page.read_text(encoding="utf-8")
    page.write_text(fresh + "stale", encoding="utf-8")
    write_report([run], page)
    assert page.read_text(encoding="utf-8") == fresh
    with pytest.raises(ValueError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(ValueError, match=r"ends in \.html, \.md, \.tex, \.csv; got .*page\.pdf"):
        write_report([run], tmp_path / "page.pdf")
    with pytest.raises(ValueError, match="no run folders"):
        write_report([], page)
